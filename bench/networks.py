"""Real networks and real photos, beside the route that everybody writes first: same network, same decoding.

    .venv/bin/python -m bench.networks [--case imagenet] [--seconds 10] [--rounds 3] [--bulk-images 400]

Cases: `imagenet`, JPEGs of 640 × 480, and `photos`, JPEGs of 12 megapixels for `fmnist-cnn`. Large uploads wait in a
folder, as shipped. All designs run on two cores with the client on them, and are measured in turns; each row is the
median of the rounds. With some loads, so are the tutorial's design, and LitServe's and BentoML's batching. Bulk is
compared with two processes that only decode and classify, with the allocator told to keep memory.
"""

import argparse
import asyncio
import io
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
import numpy as np
import torch
from PIL import Image

from bench.bulk.archives import tar_of
from bench.bulk.client import BulkClient
from bench.client import Dialect, Shot, drive
from bench.photos import jpeg, photo
from bench.services import (
    AUTHORIZATION,
    OTHERS_PYTHON,
    SECURED,
    SYNCHRONOUS,
    TUTORIAL,
    WAIT,
    Darkroom,
    Service,
    bentoml,
    darkroom,
    litserve,
    synchronous,
    tutorial,
)
from tests.support.processes import ROOT
from training.data import load_fashion_mnist
from worker.inference.images.limits import ImageLimits
from worker.inference.packages.load import load_package
from worker.settings import WorkerSettings

IN_FLIGHT = (1, 8, 32, 128)
OTHERS_IN_FLIGHT = (8, 32)
NAIVE, OURS = "naive route", "Darkroom"
OTHERS = {"tutorial": (tutorial, TUTORIAL), "LitServe": (litserve, SYNCHRONOUS), "BentoML": (bentoml, SYNCHRONOUS)}
PHOTOS = [
    ROOT / "pretrained/golden/espresso.jpg",
    ROOT / "pretrained/golden/tripod.jpg",
    ROOT / "tests/photos/cat.jpg",
]
MEGAPIXELS_12 = (4000, 3000)
PHOTO_BYTES = 1_500_000
KEEPS_MEMORY = {  # bytes; glibc then keeps what it has, instead of mapping each activation anew
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_TOP_PAD_": str(64 << 20),
}


@dataclass(frozen=True)
class Case:
    package: Path
    images: Sequence[bytes]
    bulk_images: int


@dataclass(frozen=True)
class Found:
    images_per_second: float
    p50_ms: float = 0
    p99_ms: float = 0
    server_cpu_ms: float = 0
    wrong: int = 0
    failures: int = 0


def crops(count: int) -> list[bytes]:
    """Real photos: crops of three, scaled to 640 × 480."""
    rng, found = np.random.default_rng(21), list[bytes]()
    for number in range(count):
        image = Image.open(PHOTOS[number % len(PHOTOS)]).convert("RGB")
        left, top = rng.uniform(0, 0.08, 2) * image.size
        right, bottom = image.size - rng.uniform(0, 0.08, 2) * image.size
        file = io.BytesIO()
        image.resize((640, 480), Image.Resampling.BICUBIC, (left, top, right, bottom)).save(file, "JPEG", quality=90)
        found.append(file.getvalue())
    return found


def large_photos(count: int) -> list[bytes]:
    """Photos of products of Fashion-MNIST: 12 megapixels, 1.5 MB."""
    rng = np.random.default_rng(20)
    products = load_fashion_mnist(ROOT / "data/training").test.images
    return [jpeg(photo(products[number], rng, MEGAPIXELS_12), PHOTO_BYTES) for number in range(count)]


def cases(names: Sequence[str], bulk_images: int) -> dict[str, Case]:
    every = {
        "imagenet": lambda: Case(ROOT / "weights/imagenet", crops(30), bulk_images),
        "photos": lambda: Case(ROOT / "weights/fmnist-cnn", large_photos(8), bulk_images),
    }
    return {name: every[name]() for name in names}


def shots(case: Case) -> list[Shot]:
    """The images with the classes that the unchanged network gives them."""
    torch.set_num_threads(2)
    classifier = load_package(case.package, ImageLimits.of(WorkerSettings()))
    found = []
    for image in case.images:
        (outcome,) = classifier.classify([image], [1])
        assert isinstance(outcome, list)
        found.append(Shot(image, "image/jpeg", classifier.card.classes[outcome[0].class_index]))
    return found


def measure(service: Service, dialect: Dialect, load: Sequence[Shot], in_flight: int, seconds: float) -> Found:
    cpu = list[float]()

    def read_cpu() -> None:
        cpu.append(sum(service.servers.cpu_seconds().values()))

    result = drive(
        service.port, dialect, load, in_flight=in_flight, seconds=seconds, on_start=read_cpu, on_end=read_cpu
    )
    each = 1000 * (cpu[1] - cpu[0]) / result.images
    latencies = result.quantile_ms(0.5), result.quantile_ms(0.99)
    return Found(result.images_per_second, *latencies, each, result.wrong, len(result.failures))


async def bulk(service: Darkroom, load: Sequence[Shot], count: int) -> Found:
    """One tar: from the first byte sent to the last result read."""
    body = tar_of([load[number % len(load)].image for number in range(count)])
    headers, timeout = AUTHORIZATION, aiohttp.ClientTimeout(total=600)
    async with aiohttp.ClientSession(service.url, headers=headers, timeout=timeout, read_bufsize=1 << 20) as http:
        client, loop = BulkClient(service, http), asyncio.get_running_loop()
        before, began = sum(service.servers.cpu_seconds().values()), loop.time()
        assert await client.follow(await client.submit(body)) == count
        seconds = loop.time() - began
        cpu = sum(service.servers.cpu_seconds().values()) - before
    return Found(count / seconds, server_cpu_ms=1000 * cpu / count)


@contextmanager
def image_folder(case: Case) -> Iterator[Path]:
    with TemporaryDirectory() as folder:
        for number, image in enumerate(case.images):
            (Path(folder) / f"{number:03}.jpg").write_bytes(image)
        yield Path(folder)


def compute(case: Case, folder: Path, seconds: float, batch: int) -> Found:
    """Two processes that start together."""
    environment = {**os.environ, **KEEPS_MEMORY, "MODEL_PACKAGE": str(case.package)}
    command = [sys.executable, "-m", "bench.baselines.compute", str(folder), str(seconds), str(batch)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    processes = [subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes) for _ in range(2)]  # type: ignore[call-overload]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 2
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    counts = [process.communicate(timeout=seconds + 60)[0].split() for process in processes]
    return Found(sum(int(count) / float(lasted) for count, lasted in counts))


def run(name: str, case: Case, seconds: float, rounds: int, batch: int) -> None:
    load = shots(case)
    found = defaultdict[tuple[str, str], list[Found]](list)
    with ExitStack() as exits:
        folder = exits.enter_context(image_folder(case))
        uploads = exits.enter_context(TemporaryDirectory())
        settings = SECURED | {"UPLOADS_URL": f"file://{uploads}"}
        model = {"MODEL": case.package.name, "MODELS_DIR": str(case.package.parent)}
        ours = exits.enter_context(darkroom(settings | model))
        package = {"MODEL_PACKAGE": str(case.package)}
        naive = exits.enter_context(synchronous(package))
        others = {
            other: (exits.enter_context(start(package)), dialect)
            for other, (start, dialect) in OTHERS.items()
            if start is tutorial or OTHERS_PYTHON.exists()
        }
        too_slow = set[tuple[str, int]]()
        for number in range(rounds):
            for in_flight in IN_FLIGHT:
                found[NAIVE, str(in_flight)].append(measure(naive, SYNCHRONOUS, load, in_flight, seconds))
                found[OURS, str(in_flight)].append(measure(ours, WAIT, load, in_flight, seconds))
            for in_flight in OTHERS_IN_FLIGHT:
                for other, (service, dialect) in others.items():
                    if (other, in_flight) in too_slow:
                        continue
                    try:
                        found[other, str(in_flight)].append(measure(service, dialect, load, in_flight, seconds))
                    except TimeoutError:
                        print(f"{other} with {in_flight} in flight does not warm up in time", file=sys.stderr)
                        too_slow.add((other, in_flight))
                        found.pop((other, str(in_flight)), None)
            found["compute", "bulk"].append(compute(case, folder, seconds, batch))
            found[OURS, "bulk"].append(asyncio.run(bulk(ours, load, case.bulk_images)))
            print(f"{name}: round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    table(name, found)


def table(name: str, found: dict[tuple[str, str], list[Found]]) -> None:
    median = {
        key: sorted(rounds, key=lambda it: it.images_per_second)[len(rounds) // 2] for key, rounds in found.items()
    }
    print(f"\n| {name}, in flight | {NAIVE}: img/s · p50 · p99 ms · CPU ms | {OURS} | × img/s | × p50 |")
    print("|---|---|---|---|---|")
    for in_flight in [*map(str, IN_FLIGHT), "bulk"]:
        base = median[("compute" if in_flight == "bulk" else NAIVE), in_flight]
        ours = median[OURS, in_flight]
        of_rounds = zip(
            found[("compute" if in_flight == "bulk" else NAIVE), in_flight], found[OURS, in_flight], strict=True
        )
        ratio = statistics.median(mine.images_per_second / other.images_per_second for other, mine in of_rounds)
        slower = f"{ours.p50_ms / base.p50_ms:.2f}" if base.p50_ms else ""
        label = "bulk, beside compute alone" if in_flight == "bulk" else in_flight
        print(f"| {label} | {cell(base)} | {cell(ours)} | {ratio:.2f} | {slower} |")
    print(f"\n| {name}, in flight | design | img/s · p50 · p99 ms · CPU ms | {OURS}: × img/s |")
    print("|---|---|---|---|")
    for (other, in_flight), rounds in found.items():
        if other in OTHERS:
            pairs = zip(rounds, found[OURS, in_flight], strict=True)
            ratio = statistics.median(mine.images_per_second / its.images_per_second for its, mine in pairs)
            print(f"| {in_flight} | {other} | {cell(median[other, in_flight])} | {ratio:.2f} |")


def cell(it: Found) -> str:
    wrong = f" · wrong {it.wrong}" if it.wrong else ""
    failed = f" · failed {it.failures}" if it.failures else ""
    return f"{it.images_per_second:.1f} · {it.p50_ms:.0f} · {it.p99_ms:.0f} · {it.server_cpu_ms:.1f}{wrong}{failed}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=["imagenet", "photos"], action="append", help="default: both")
    parser.add_argument("--seconds", type=float, default=10, help="of each load, after a second of warm-up")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bulk-images", type=int, default=400)
    parser.add_argument("--compute-batch", type=int, default=8)
    options = parser.parse_args()
    for name, case in cases(options.case or ["imagenet", "photos"], options.bulk_images).items():
        run(name, case, options.seconds, options.rounds, options.compute_batch)


if __name__ == "__main__":
    main()
