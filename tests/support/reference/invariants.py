"""Invariants of the store and the reference model after each step. See `test_reference_model.py`."""

from hypothesis.stateful import invariant

from jobs.records import ChunkRef, ItemState, Lane
from jobs.spool.names import Pointer
from jobs.store import keys
from jobs.store.job_hash import idempotency_key_name, job_key, upload_key
from tests.support.reference.reference_model import ready, suspects
from tests.support.reference.walk import OWNERS, StoreWalk
from tests.support.store import MODEL


class StoreInvariants(StoreWalk):
    @invariant()
    def check(self) -> None:
        self.seen["steps"] += 1
        self.items_are_as_modeled()
        self.each_waiting_chunk_is_in_one_place()
        self.counters_are_right()
        self.shares_are_right()
        self.references_to_jobs_are_right()

    def items_are_as_modeled(self) -> None:
        for job, (found, items) in zip(self.model.jobs, self.run(self.read_all()), strict=True):
            assert (found is None) == job.gone
            if found is not None:
                succeeded, failed = job.count(ItemState.SUCCEEDED), job.count(ItemState.FAILED)
                assert (found.state, found.total, found.chunks) == (job.state, job.total, len(job.chunks))
                assert (found.succeeded, found.failed, found.failure_code) == (succeeded, failed, job.failure_code)
                assert items == job.shown()

    def each_waiting_chunk_is_in_one_place(self) -> None:
        names = self.redis.keys()
        queues = [name for name in names if name.startswith(keys.READY.encode())]
        sets = [name for name in names if name.startswith(keys.LEASED_CHUNKS.encode())]
        rotations = [f"{keys.ROTATION}{MODEL}:{lane}" for lane in ("i", "b", keys.SUSPECT_LANE)]
        pipeline = self.redis.pipeline(transaction=False)
        for name in [*rotations, *queues]:
            pipeline.lrange(name, 0, -1)
        for name in sets:
            pipeline.smembers(name)
        interactive, bulk, alone, *replies = pipeline.execute()
        found = [
            (ChunkRef.unpack(packed), name.decode())
            for name, packed_refs in zip(queues + sets, replies, strict=True)
            for packed in packed_refs
        ]
        places = {chunk_ref: place for chunk_ref, place in found if self.model.chunk(chunk_ref).job.live}

        for lane, rotation in zip(Lane, (interactive, bulk), strict=True):
            assert sorted(rotation) == [owner.encode() for owner in OWNERS if ready(lane, owner).encode() in queues]
        assert sorted(alone) == [owner.encode() for owner in OWNERS if suspects(owner).encode() in queues]
        assert len(dict(found)) == len(found)
        assert places == {chunk.chunk_ref: chunk.place for chunk in self.model.waiting()}

    def counters_are_right(self) -> None:
        uploads = self.redis.keys(keys.UPLOAD + "*")
        there = self.model.there()
        pipeline = self.redis.pipeline(transaction=False)
        for name in uploads:
            pipeline.get(name)
        for job in there:
            pipeline.hget(job_key(job.id), keys.FIELDS["record_bytes"])
            pipeline.hget(job_key(job.id), keys.FIELDS["retained_spooled"])
        pipeline.hgetall(keys.STATS)
        pipeline.mget("no such key", *self.model.used)
        *replies, stats, (_, *used) = pipeline.execute()
        stored = dict(zip(uploads, replies, strict=False))
        pointers = [pointer for pointer in map(Pointer.unpack, stored.values()) if pointer is not None]
        in_redis = [len(data) for data in stored.values() if Pointer.unpack(data) is None]
        records = sum(map(int, replies[len(uploads) :: 2]))
        kept = sum(int(size or 0) for size in replies[len(uploads) + 1 :: 2])

        for chunk in self.model.waiting():
            data = chunk.upload if chunk.pointer is None else chunk.pointer.pack()
            assert stored[upload_key(chunk.job.id, chunk.chunk_ref.chunk)] == data
        assert list(map(int, used)) == list(self.model.used.values())
        counted = {
            "accepted": len(self.model.jobs),
            "transitions": self.model.terminal(),
            "uploads": sum(in_redis) + keys.POINTER_BYTES * len(pointers) + keys.UPLOAD_KEY_BYTES * len(stored),
            "spooled": sum(pointer.size for pointer in pointers) + kept,
            "records": records + keys.ENDED_ID_BYTES * sum(self.gone(name) for name in self.model.ended),
            **{f"pending:{owner}": self.model.pending(owner) for owner in OWNERS},
        }
        assert {name: int(stats.get(name.encode(), 0)) for name in counted} == counted

    def gone(self, list_name: str) -> int:
        return sum(job.gone for job in self.model.ended[list_name])

    def shares_are_right(self) -> None:
        stored = {name.removeprefix(keys.UPLOAD.encode()) for name in self.redis.keys(keys.UPLOAD + "*")}
        for owner in OWNERS:
            jobs = [job for job in self.model.jobs if job.owner == owner and job.in_share]
            costs = [it.cost for job in jobs for it in job.chunks if it.chunk_ref.pack()[:20] in stored]
            pipeline = self.redis.pipeline(transaction=False)
            for job in jobs:
                pipeline.hget(job_key(job.id), keys.FIELDS["record_bytes"])
                pipeline.hget(job_key(job.id), keys.FIELDS["retained_spooled"])
            pipeline.hmget(keys.STATS, f"uploads:{owner}", f"spooled:{owner}")
            pipeline.zscore(keys.OWNERS, owner)
            *sizes, (uploads, spooled), share = pipeline.execute()
            records, retained = (sum(int(size or 0) for size in sizes[at::2]) for at in (0, 1))
            records += keys.ENDED_ID_BYTES * self.gone(keys.ENDED_OF_OWNER + owner)
            assert int(uploads or 0) == sum(upload for upload, _ in costs)
            assert int(spooled or 0) == sum(spool for _, spool in costs) + retained
            assert share == (records or None)

    def references_to_jobs_are_right(self) -> None:
        there, live_leases = self.model.there(), self.model.live_leases()
        pipeline = self.redis.pipeline(transaction=False)
        for name in (
            keys.LEASES,
            keys.OPEN_DEADLINES,
            keys.WEBHOOKS_DUE,
            *(keys.OWNER_JOBS + owner for owner in OWNERS),
        ):
            pipeline.zrange(name, 0, -1)
        lists = [keys.ENDED, *(keys.ENDED_OF_OWNER + owner for owner in OWNERS)]
        for name in lists:
            pipeline.lrange(name, 0, -1)
        pipeline.zrange(keys.OLDEST_ENDED, 0, -1)
        pipeline.hgetall(keys.SUSPECT_ITEM)
        pipeline.keys(keys.IDEMPOTENCY_KEY + "*")
        leases, opened, hooks, *found, oldest, reached, keyed = pipeline.execute()
        owned, ended = found[: len(OWNERS)], found[len(OWNERS) :]

        assert set(leases) == {lease.token.encode() for lease in live_leases}
        assert set(opened) == {job.id for job in self.model.open()}
        assert set(hooks) == {job.id for job in there if job.hook and not job.live}
        assert owned == [[job.id for job in there if job.owner == owner] for owner in OWNERS]
        assert ended == [[job.id for job in self.model.ended[name]] for name in lists]
        assert set(oldest) == {owner.encode() for owner, ids in zip(OWNERS, ended[1:], strict=True) if ids}
        assert reached == {it.token.encode(): b"%d" % it.reached for it in live_leases if it.reached is not None}
        assert set(keyed) == {idempotency_key_name(owner, key) for owner, key in self.model.keyed}
