import pytest

from jobs.errors import JobExpired, JobNotFound
from jobs.ids import new_id
from jobs.records import JobState
from jobs.store import keys
from tests.support.store import OWNER, Store


async def test_a_job_of_another_owner_is_not_found(store: Store) -> None:
    job_id = await store.submit(b"one", owner="alice")
    for call in (store.jobs.get, store.jobs.cancel, store.jobs.delete):
        with pytest.raises(JobNotFound):
            await call(job_id, "bob")
    assert (await store.get(job_id, "alice")).state is JobState.QUEUED


async def test_a_deleted_job_has_expired_for_its_owner_and_is_not_found_by_others(store: Store) -> None:
    job_id = await store.submit(b"one")
    await store.jobs.delete(job_id, OWNER)

    for call in (store.jobs.get, store.jobs.cancel, store.jobs.delete):
        with pytest.raises(JobExpired):
            await call(job_id, OWNER)
        with pytest.raises(JobNotFound):
            await call(job_id, "bob")
        with pytest.raises(JobNotFound):
            await call(new_id(OWNER, b"another secret"), OWNER)


async def test_a_cancel_of_an_ended_job_changes_nothing(store: Store) -> None:
    job_id = await store.submit(b"one")
    store.finish(store.claim())
    await store.jobs.cancel(job_id, OWNER)
    assert (await store.get(job_id)).state is JobState.COMPLETED


async def test_jobs_are_listed_newest_first_page_by_page(store: Store) -> None:
    jobs = [await store.submit(b"one") for _ in range(7)]
    await store.submit(b"one", owner="another-owner")

    seen, cursor = [], None
    while True:
        page, cursor = await store.jobs.list(OWNER, before=cursor, limit=3, state=None)
        seen += [job.id for job in page]
        if cursor is None:
            break
    assert seen == jobs[::-1]


async def test_pages_stay_in_step_while_jobs_come_and_go(store: Store) -> None:
    jobs = [await store.submit(b"one") for _ in range(6)]
    first, cursor = await store.jobs.list(OWNER, before=None, limit=2, state=None)
    await store.submit(b"new")
    await store.jobs.delete(jobs[0], OWNER)
    await store.jobs.delete(jobs[2], OWNER)

    second, cursor = await store.jobs.list(OWNER, before=cursor, limit=2, state=None)

    assert [job.id for job in (*first, *second)] == [jobs[5], jobs[4], jobs[3], jobs[1]]
    assert cursor is None


async def test_jobs_are_listed_by_state(store: Store) -> None:
    ended = await store.submit(b"one")
    store.finish(store.claim())
    queued = await store.submit(b"one")
    for state, job_id in ((JobState.COMPLETED, ended), (JobState.QUEUED, queued)):
        (job,), _ = await store.jobs.list(OWNER, before=None, limit=10, state=state)
        assert job.id == job_id


async def test_deleted_jobs_are_left_out_of_a_listing(store: Store) -> None:
    oldest = await store.submit(b"one", model="another")
    for job_id in [await store.submit(b"one") for _ in range(30)][::-1]:
        await store.jobs.delete(job_id, OWNER)
    newest = await store.submit(b"one")

    page, cursor = await store.jobs.list(OWNER, before=None, limit=2, state=None)

    assert ([job.id for job in page], cursor) == ([newest, oldest], None)
    assert store.redis.zcard(keys.OWNER_JOBS + OWNER) == 2


async def test_an_owner_without_jobs_has_an_empty_list(store: Store) -> None:
    assert await store.jobs.list("carol", before=None, limit=10, state=None) == ([], None)


async def test_items_can_be_read_from_any_place(store: Store) -> None:
    job = await store.get(await store.submit(*[b"image"] * 30, chunk_items=3))
    every = [found async for found in store.jobs.items(job)]
    assert [item.index for _, _, item in every] == list(range(30))
    for chunk, place, item in every:
        found = [found async for found in store.jobs.items(job, chunk=chunk, place=place, index=item.index)]
        assert found == every[item.index :]


async def test_reading_items_ends_if_their_job_is_deleted(store: Store) -> None:
    job_id = await store.submit(*[b"image"] * 30, chunk_items=2)
    found = store.jobs.items(await store.get(job_id))
    first = [(await anext(found))[2].index for _ in range(3)]
    await store.jobs.delete(job_id, OWNER)
    rest = list[int]()

    async def read_on() -> None:
        async for _, _, item in found:
            rest.append(item.index)

    with pytest.raises(JobExpired):
        await read_on()
    assert first + rest == list(range(16)), "only the items that were read before the delete"


async def test_a_one_image_job_that_is_deleted_while_its_item_is_read_has_none(store: Store) -> None:
    job_id = await store.submit(b"one")
    store.finish(store.claim())
    job = await store.get(job_id)
    await store.jobs.delete(job_id, OWNER)
    with pytest.raises(JobExpired):
        await anext(store.jobs.items(job))
