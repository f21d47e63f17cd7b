"""An S3 on 127.0.0.1."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import httpx
from moto.server import ThreadedMotoServer


class S3:
    def __init__(self, endpoint: str) -> None:
        self.settings: dict[str, Any] = {
            "s3_endpoint_url": endpoint,
            "s3_allow_http": True,
            "s3_buckets": ["*"],
            "s3_access_key_id": "key",
            "s3_secret_access_key": "secret",
        }
        self._client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="key",
            aws_secret_access_key="secret",
        )

    def bucket(self, name: str, **objects: bytes) -> None:
        self._client.create_bucket(Bucket=name)
        self.put(name, objects)

    def put(self, name: str, objects: dict[str, bytes]) -> None:
        for key, body in objects.items():
            self._client.put_object(Bucket=name, Key=key, Body=body)


@contextmanager
def serving_s3() -> Iterator[S3]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        httpx.post(
            f"http://{host}:{port}/moto-api/reset"
        ).raise_for_status()  # moto does not delete its buckets when a server ends
        yield S3(f"http://{host}:{port}")
    finally:
        server.stop()
