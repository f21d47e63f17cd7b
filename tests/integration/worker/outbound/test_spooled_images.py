"""Fetched images that are large go to the spool."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from jobs.codec import pack_upload
from jobs.settings import StoreSettings
from jobs.spool.folder import SUBFOLDER
from jobs.store.for_workers.outbound import DeliveryStatus, OutboundStore
from jobs.store.keys import FETCH, POINTER_BYTES, UPLOAD_KEY_BYTES
from tests.support.outbound import claim_images, submit_urls
from tests.support.processes import MAXMEMORY_BYTES, Valkey
from tests.support.store import Store

LARGE = b"x" * (256 << 10)
SIZE = len(pack_upload([LARGE]))


@pytest.fixture
def store_settings(valkey: Valkey, tmp_path: Path) -> StoreSettings:
    (tmp_path / SUBFOLDER).mkdir()
    return StoreSettings(
        redis_url=valkey.url,
        redis_maxmemory_bytes=MAXMEMORY_BYTES,
        uploads_url=f"file://{tmp_path}",
        uploads_spool_bytes_max=SIZE + 1,
    )


@pytest.fixture
def outbound(store: Store) -> Iterator[OutboundStore]:
    with closing(OutboundStore(store.store_client.settings, lease_seconds=4, timeout_seconds=5)) as opened:
        yield opened


def files(folder: Path) -> list[Path]:
    return list((folder / SUBFOLDER).iterdir())


async def test_large_images_are_delivered_as_a_file(store: Store, outbound: OutboundStore, tmp_path: Path) -> None:
    await submit_urls(store, "http://example.com/a.png", chunk_items=1)
    await submit_urls(store, "http://example.com/b.png", chunk_items=1)
    leases = [store.claim(number, model=FETCH, items=1) for number in range(2)]
    first, second = ((lease.token, lease.chunks[0].chunk_ref) for lease in leases)
    urls = second[1].upload_bytes + UPLOAD_KEY_BYTES

    assert outbound.deliver(*first, pack_upload([LARGE])) is DeliveryStatus.OK
    assert (store.stat("spooled"), store.stat("uploads")) == (SIZE, UPLOAD_KEY_BYTES + POINTER_BYTES + urls)
    assert len(files(tmp_path)) == 1
    assert outbound.deliver(*second, pack_upload([LARGE])) is DeliveryStatus.QUEUE_FULL
    assert len(files(tmp_path)) == 1
    assert claim_images(store) == [LARGE]
    assert outbound.deliver(*first, pack_upload([LARGE])) is DeliveryStatus.LOST
    assert len(files(tmp_path)) == 1


async def test_small_images_go_to_redis(store: Store, outbound: OutboundStore, tmp_path: Path) -> None:
    await submit_urls(store, "http://example.com/a.png")
    lease = store.claim(model=FETCH)
    assert outbound.deliver(lease.token, lease.chunks[0].chunk_ref, pack_upload([b"small"])) is DeliveryStatus.OK
    assert (files(tmp_path), claim_images(store)) == ([], [b"small"])
