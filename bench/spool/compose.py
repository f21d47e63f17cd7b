"""A folder of large photos through `docker compose up` with the memory limits as shipped.

    .venv/bin/python -m bench.spool.compose [--photos 1000]

The photos have 12 megapixels, and go as one tar. Prints how long it took, and for each container how often it was
started again, how often the kernel killed for memory, and its peak: of its own pages, and with the page cache, which it
gives back when it needs memory. Exits with 1 unless all photos were classified by containers that stayed.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.photos import jpeg, photo
from tests.support.deploy.compose import Compose
from tests.support.processes import ROOT
from training.data import load_fashion_mnist

SERVICES = ("redis", "api", "worker", "outbound")
SIZE, JPEG_BYTES = (4000, 3000), 3_500_000
DISTINCT = 16
END_SECONDS_MAX = 1800
CGROUPS = Path("/sys/fs/cgroup/memory/docker")
_SAMPLE_SECONDS = 0.1


class Memory(NamedTuple):
    """What a container's group says of its memory."""

    peak_bytes: int
    """With the page cache."""
    own_bytes: int
    """Now, without it."""
    killed: int
    """How many processes the kernel has killed in it."""

    @classmethod
    def of(cls, container_id: str) -> "Memory":
        group = CGROUPS / container_id
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        control = dict(line.split() for line in (group / "memory.oom_control").read_text().splitlines())
        peak = int((group / "memory.max_usage_in_bytes").read_text())
        return cls(peak, int(stat["total_rss"]), int(control["oom_kill"]))


class OwnPeaks(threading.Thread):
    """The most memory of its own that each container was seen to have."""

    def __init__(self, container_ids: list[str]) -> None:
        super().__init__(daemon=True)
        self.bytes = dict.fromkeys(container_ids, 0)
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(_SAMPLE_SECONDS):
            for container_id, most in self.bytes.items():
                self.bytes[container_id] = max(most, Memory.of(container_id).own_bytes)

    def stop(self) -> None:
        self._stopped.set()
        self.join()


def write_photos(folder: Path, count: int) -> None:
    """Some photos, each under many names."""
    rng = np.random.default_rng(1)
    products = load_fashion_mnist(ROOT / "data/training").test.images
    for number in range(min(DISTINCT, count)):
        (folder / f"{number:04}.jpg").write_bytes(jpeg(photo(products[number], rng, SIZE), JPEG_BYTES))
    for number in range(DISTINCT, count):
        os.link(folder / f"{number % DISTINCT:04}.jpg", folder / f"{number:04}.jpg")


def classify(compose: Compose, folder: Path) -> tuple[dict[str, Any], float]:
    """The ended job, and the seconds until it was accepted."""
    command = ["tar", "--create", "--hard-dereference", "--directory", str(folder), "."]
    began = time.monotonic()
    with compose.client() as http, subprocess.Popen(command, stdout=subprocess.PIPE) as tar:
        assert tar.stdout is not None
        pieces = iter(partial(tar.stdout.read, 1 << 20), b"")
        headers = {"Content-Type": "application/x-tar"}
        answer = http.post("/v1/jobs", content=pieces, headers=headers, timeout=END_SECONDS_MAX)
        accepted = time.monotonic() - began
        if answer.status_code != 202:
            sys.exit(f"{answer.status_code}: {answer.text}")
        while time.monotonic() - began < END_SECONDS_MAX:
            job: dict[str, Any] = http.get(f"{answer.headers['Location']}?wait=30").json()
            if job["status"] in ("completed", "failed", "canceled"):
                return job, accepted
    sys.exit(f"not done after {END_SECONDS_MAX} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photos", type=int, default=1000)
    options = parser.parse_args()
    compose = Compose()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_photos(folder, options.photos)
        photo_bytes = sum(path.stat().st_size for path in folder.iterdir())
        try:
            compose("build", *SERVICES)
            compose.make_key()
            compose("up", "--detach", "--wait", *SERVICES)
            while compose.first_result() is None:
                time.sleep(0.5)
            containers = {service: compose.containers(service)[0] for service in SERVICES}
            peaks = OwnPeaks([it["Id"] for it in containers.values()])
            peaks.start()
            began = time.monotonic()
            job, accepted = classify(compose, folder)
            seconds = time.monotonic() - began
            peaks.stop()
            print(
                f"{options.photos} photos of 12 megapixels, {photo_bytes / 1e9:.2f} GB: "
                f"accepted after {accepted:.1f} s, {job['status']} after {seconds:.1f} s, "
                f"{options.photos / seconds:.1f} a second; {job['counts']}"
            )
            stayed = True
            for service, before in containers.items():
                (after,) = compose.containers(service)
                memory = Memory.of(after["Id"])
                restarts = after["RestartCount"] - before["RestartCount"]
                stayed = stayed and restarts == memory.killed == 0 and not after["State"]["OOMKilled"]
                print(
                    f"{service}: limit {after['HostConfig']['Memory'] >> 20} MiB, "
                    f"peak {peaks.bytes[after['Id']] >> 20} MiB, with page cache {memory.peak_bytes >> 20} MiB; "
                    f"restarts {restarts}, killed {memory.killed}"
                )
        finally:
            compose("down", "--volumes", "--timeout", "30", check=False)
    sys.exit(0 if stayed and job["counts"]["succeeded"] == options.photos else 1)


if __name__ == "__main__":
    main()
