"""LitServe with its batching: one API server, two workers.

python -m bench.baselines.litserve_api PORT
"""

import sys

import litserve
from starlette.requests import Request

from bench.baselines import BATCH_IMAGES_MAX, BATCH_WAIT_SECONDS_MAX, PROCESSES
from bench.baselines.predictor import load_predictor


class Api(litserve.LitAPI):  # type: ignore[misc]  # litserve has no types
    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe passes it by name
        self.classify = load_predictor()

    def decode_request(self, request: Request) -> bytes:  # by this type LitServe knows that it passes on the form
        data: bytes = request["file"].file.read()
        return data

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        return inputs

    def predict(self, images: list[bytes]) -> list[dict[str, str]]:
        return self.classify(images)

    def unbatch(self, output: list[dict[str, str]]) -> list[dict[str, str]]:
        return output


if __name__ == "__main__":
    api = Api(max_batch_size=BATCH_IMAGES_MAX, batch_timeout=BATCH_WAIT_SECONDS_MAX)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=PROCESSES)
    server.run(port=int(sys.argv[1]), num_api_servers=1, generate_client_file=False, log_level="warning")
