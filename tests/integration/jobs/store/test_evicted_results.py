"""Under memory pressure, the oldest results of the owner who has most go first."""

import pytest

from jobs.errors import JobExpired
from tests.support.shares import age, finish_all, share, until_refused
from tests.support.store import MODEL, Store


async def test_the_owner_who_has_most_loses_results_first_although_those_of_others_are_older(
    small_store: Store,
) -> None:
    store = small_store
    of_bob = [await store.submit(b"one", owner="bob") for _ in range(20)]
    of_alice = list[bytes]()

    async def submit() -> None:
        of_alice.append(await store.submit(b"one", owner="alice"))

    finish_all(store)
    await until_refused(submit)
    finish_all(store)
    age(store, "alice", "bob")

    await store.jobs.sweep([MODEL])

    for job_id in of_bob:
        await store.get(job_id, "bob")
    with pytest.raises(JobExpired):
        await store.get(of_alice[0], "alice")
    await store.get(of_alice[-1], "alice")
    records_max = 0.9 * store.store_client.settings.records_budget_bytes
    own_and_all, one = share(store, "alice")[2] + store.stat("records"), store.record_bytes(of_alice[-1])
    assert records_max - 2 * one <= own_and_all <= records_max, "no more than are needed"
    await submit()


async def test_results_are_evicted_after_their_least_time_to_live_only(small_store: Store) -> None:
    store = small_store
    of_alice = list[bytes]()

    async def submit() -> None:
        of_alice.append(await store.submit(b"one", owner="alice"))

    await until_refused(submit)
    finish_all(store)
    await store.jobs.sweep([MODEL])
    for job_id in of_alice:
        await store.get(job_id, "alice")


async def test_results_of_a_key_go_when_several_owners_fill_the_records(small_store: Store) -> None:
    """Each has his share, and all of them together nine tenths of the budget."""
    store = small_store
    owners = [f"owner{n}" for n in range(8)]
    jobs = list[tuple[str, bytes]]()

    for owner in owners:

        async def submit(owner: str = owner) -> None:
            jobs.append((owner, await store.submit(b"one", owner=owner)))

        await until_refused(submit)
    finish_all(store)
    assert store.stat("records") > 0.9 * store.store_client.settings.records_budget_bytes
    age(store, *owners)
    await store.jobs.sweep([MODEL])

    assert store.stat("records") <= 0.9 * store.store_client.settings.records_budget_bytes
    for owner, job_id in jobs:
        if owner not in owners[:2]:
            await store.get(job_id, owner)
