"""Uploads of many images, and helpers for their tests."""

import json

import httpx

from tests.support.store import Store

PNG = {"Content-Type": "image/png"}
TAR = {"Content-Type": "application/x-tar"}
ZIP = {"Content-Type": "application/zip"}


def numbered_images(shirt: bytes, count: int) -> dict[str, bytes]:
    return {f"photos/{n:03}.png": shirt + bytes([n % 256]) for n in range(count)}


def finish_all(store: Store) -> int:
    """Finish all ready chunks, as a worker would. Returns the number of images."""
    done = 0
    while (lease := store.claim(done)).chunks:
        done += store.finish(lease)
    return done


async def names_of(api: httpx.AsyncClient, job: dict[str, object]) -> list[str]:
    answer = await api.get(f"/v1/jobs/{job['id']}/results", headers={"Accept": "application/x-ndjson"})
    return [json.loads(line)["name"] for line in answer.text.splitlines()]
