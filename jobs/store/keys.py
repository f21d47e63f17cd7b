"""Every name that stands in Redis or in a Celery message: keys, fields of a job's hash, queues, tasks, the channel.

Python and Lua read the same names: a script writes `K.job` and `F.state`, and `jobs/store/scripts.py` puts the values
of `KEYS` and `FIELDS` in their place. In the comments `ID` is a job's 16 raw bytes, and `CHUNK` the number of one of
its chunks as four big-endian bytes.
"""

from collections.abc import Iterable
from contextlib import suppress
from typing import Final, NamedTuple, TypeVar

from jobs.owner_shares import OWNER_OF_ALL

TASK: Final = "classify"
OUTBOUND_TASK: Final = "outbound"  # fetches the URLs of chunks and calls the webhooks that are due
QUEUE: Final = "darkroom."  # + model, a name or name@version: the Celery queue that carries this model's doorbells
DOORBELL_PLACEHOLDER: Final = "BELLID"  # stands in a doorbell template for the doorbell's unique id
ENDED_CHANNEL: Final = "darkroom.notices"  # + database number, which pub/sub ignores: see `unpack_notices`
FETCH: Final = "@fetch"  # in place of a model's name: outbound workers take chunks of URLs first

JOB: Final = "j:"  # + ID, hash: the record, see FIELDS
UPLOAD: Final = "b:"  # + ID CHUNK, string: one chunk's packed upload bytes, or a `Pointer` to a file that has them
READY: Final = "q:"  # + model:lane:owner, list: chunk references that wait, oldest first
ROTATION: Final = "ring:"  # + model:lane, list: owners with ready chunks, the next one first
SUSPECTS: Final = "suspect:"  # + model, list: suspects that earlier releases left; taken before those of SUSPECT_LANE
LEASES: Final = "leases"  # sorted set: owner token by the lease's end, Redis time in ms
LEASED_CHUNKS: Final = "l:"  # + owner token, set: the chunk references under this lease
SUSPECT_ITEM: Final = "suspect_at"  # hash: owner token to the item that a suspect run has reached, -1 before the first,
#                                     SUSPECT_PAUSED while its process does other work
OWNERS: Final = "owners"  # sorted set: owners by the record bytes of their jobs in shares
ENDED_OF_OWNER: Final = "ended:"  # + owner, list: IDs of ended jobs in shares, oldest first; deleted ones as in ENDED
OLDEST_ENDED: Final = "oldest"  # sorted set: owners by the end of the first job of ENDED_OF_OWNER, Redis time in ms
ENDED: Final = "ended"  # list: IDs of other ended jobs, oldest first; deleted jobs stay until they reach the head
OWNER_JOBS: Final = "jobs:"  # + owner, sorted set: IDs of this owner's jobs by their number among all accepted jobs
OPEN_DEADLINES: Final = "open"  # sorted set: IDs of open jobs by their deadline, Redis time in ms
IDEMPOTENCY_KEY: Final = "k:"  # + owner:DIGEST, string: ID of the job that this Idempotency-Key made; goes with the job
WEBHOOKS_DUE: Final = "hooks"  # sorted set: IDs of ended jobs by the time of their next webhook call, Redis time in ms
TRASH: Final = "trash"  # list: jobs whose upload bytes the sweep frees: ID, first and number of chunks (4 bytes each),
#                         owner if the job is in his shares
STATS: Final = "stats"  # hash: uploads, spooled, records, accepted, transitions, drained; pending:OWNER: items to end;
#                         uploads:OWNER, spooled:OWNER: bytes of jobs in shares
DOORBELL_TEMPLATE: Final = "bell:"  # + model, string: the Celery message that rings this model's workers
WAKE: Final = "wake:"  # + model, list of one: a lingering child process blocks on it, faster than a doorbell
DOORBELL_COUNTER: Final = "bells"  # counter: makes every doorbell's id unique
MAIN: Final = "@main"  # in place of a model's name: heartbeats of workers' main processes
HEARTBEATS: Final = "serving:"  # + model name, sorted set: `Heartbeat` of ready worker processes by its end, ms
LOAD_ERRORS: Final = "faults"  # sorted set: `LoadError` by the time until which it holds, Redis time in s
PACES: Final = "paces"  # hash: name@version|device to how fast it is computed there, as JSON
MODEL_CARDS: Final = "models"  # hash: name@version to the model's card
SIGNING_KEY: Final = "secret"  # string: the key that signs job ids; workers may be denied it
STORE_ID: Final = "store_id"  # string: identifies the store to its spool, derived from SIGNING_KEY
API_KEYS: Final = "apikeys"  # hash: id of an API key to its `ApiKeyRecord`; revoked ones stay
API_KEYS_VERSION: Final = "apikeys_version"  # string: another one after each change of API_KEYS
API_KEYS_USED: Final = "apikeys_used"  # hash: id of an API key to its last use, Redis time in minutes
ITEMS_OF_DAY: Final = "day:"  # + id of an API key:UTC day since 1970, counter: items accepted with it; lasts a day
WRITE_PROBE: Final = "write_probe"  # string with a short life: shows that the server takes writes

SUSPECT_LANE: Final = "s"  # in READY and ROTATION, beside the lanes of jobs: chunks that run alone, owner after owner
SUSPECT_PAUSED: Final = -2  # in SUSPECT_ITEM: whatever happens to the process now is not charged to this chunk
ITEM_LOST: Final = "lost:"  # + item, among the items of a chunk's failure counts: leases lost while it ran alone

# Fields of a job's hash
FIELDS: Final = {
    "state": "s",  # see `STATE_CODE`
    "owner": "w",
    "model": "m",
    "lane": "l",  # see `LANE_CODE`
    "top_k": "k",
    "accepted_ms": "a",
    "started_ms": "t",  # when its first chunk was claimed
    "ended_ms": "e",
    "active_ms": "la",  # when a part of its items last ended, or were added; none before
    "items": "n",
    "succeeded": "d",
    "failed": "f",
    "skipped": "j",  # archive entries that are not content
    "chunks": "c",
    "failure_code": "g",  # why the whole job failed
    "record_bytes": "z",  # its share of the record budget
    "retry_of": "o",  # ID of the job that it retries
    "fingerprint": "v",  # digest of its content and options
    "key_digest": "y",  # of its Idempotency-Key
    "at_deadline": "q",  # of an open job, by earlier versions: 's' seals it at its deadline
    "webhook_url": "h",
    "webhook_attempts": "ha",  # JSON, the last ones
    "result_bytes": "rb",  # record bytes set aside for the result of each item that has not ended
    "retained_spooled": "bs",  # bytes of the files that "retained" points to
    "traceparent": "tp",  # of the request that submitted it, if that is traced
    "in_share": "ws",  # 1 if the job counts in its owner's shares of the budgets
    # + number of a chunk, in decimal
    "names": "i",  # JSON, or empty
    "results": "r",  # `pack_outcomes`
    "failure_counts": "x",  # JSON, see `FailureCounts`
    "progress": "p",  # `pack_outcomes` of the items that an earlier run has done
    "retained": "b",  # `pack_retained`: failed images, for a retry; or a `Pointer` to a file that has them
    # + name of a part
    "part": "u",  # holder's token (8 bytes), end of its hold (ms as a double, 0 once done), chunks (4), digest so far
}

# What the record budget counts, beyond the strings; tests/integration/jobs/store/test_memory.py measures it.
JOB_RECORD_BYTES: Final = 356  # a job of one chunk, in the listpack that jobs/store/server_check.py asks for
CHUNK_RECORD_BYTES: Final = 190  # each further chunk of it; many chunks turn the listpack into a hash table
ENDED_ID_BYTES: Final = 20  # an id among the ended
IDEMPOTENCY_KEY_BYTES: Final = 160  # the key of an Idempotency-Key
UPLOAD_KEY_BYTES: Final = 96  # a chunk's upload key, beyond its bytes
POINTER_BYTES: Final = 112  # what the upload budget counts for a `Pointer`, which is not longer than this

HEARTBEAT_MS_MAX: Final = 120_000  # a heartbeat that ends later is from before the clock was set back
DAY_MS: Final = 86_400_000


KEYS: Final[dict[str, str | int]] = {
    "queue": QUEUE,
    "doorbell_placeholder": DOORBELL_PLACEHOLDER,
    "fetch": FETCH,
    "job": JOB,
    "upload": UPLOAD,
    "ready": READY,
    "rotation": ROTATION,
    "suspects": SUSPECTS,
    "suspect_lane": SUSPECT_LANE,
    "suspect_paused": SUSPECT_PAUSED,
    "item_lost": ITEM_LOST,
    "leases": LEASES,
    "leased_chunks": LEASED_CHUNKS,
    "suspect_item": SUSPECT_ITEM,
    "owners": OWNERS,
    "ended_of_owner": ENDED_OF_OWNER,
    "oldest_ended": OLDEST_ENDED,
    "ended": ENDED,
    "owner_jobs": OWNER_JOBS,
    "open_deadlines": OPEN_DEADLINES,
    "idempotency_key": IDEMPOTENCY_KEY,
    "webhooks_due": WEBHOOKS_DUE,
    "trash": TRASH,
    "stats": STATS,
    "doorbell_template": DOORBELL_TEMPLATE,
    "doorbell_counter": DOORBELL_COUNTER,
    "wake": WAKE,
    "heartbeats": HEARTBEATS,
    "model_cards": MODEL_CARDS,
    "items_of_day": ITEMS_OF_DAY,
    "day_ms": DAY_MS,
    "owner_of_all": OWNER_OF_ALL,
    "job_record_bytes": JOB_RECORD_BYTES,
    "chunk_record_bytes": CHUNK_RECORD_BYTES,
    "ended_id_bytes": ENDED_ID_BYTES,
    "idempotency_key_bytes": IDEMPOTENCY_KEY_BYTES,
    "upload_key_bytes": UPLOAD_KEY_BYTES,
    "pointer_bytes": POINTER_BYTES,
}
"""What the scripts write as `K.name`."""


def ended_channel(database: int) -> str:
    """The pub/sub channel of the completion notices of one Redis database."""
    return f"{ENDED_CHANNEL}.{database}"


# Strings that name a process: several values joined by "|"


class OwnerToken(NamedTuple):
    """The owner of a lease: one claim of one worker process."""

    worker_id: str
    task_id: str
    """The Celery task in which the process claims."""
    pid: int
    sequence: int
    """Counts the claims of the process."""
    lease_ms: int = 0
    """How long the lease lasts if it is not renewed; 0 in tokens of earlier releases, which do not say it."""

    def pack(self) -> str:
        token = f"{self.worker_id}|{self.task_id}|{self.pid}|{self.sequence}"
        return f"{token}|{self.lease_ms}" if self.lease_ms else token

    @classmethod
    def unpack(cls, packed: bytes | str) -> "OwnerToken":
        worker_id, task_id, *numbers = _text(packed).split("|")
        if not 2 <= len(numbers) <= 3:
            raise ValueError("an owner token of another form")
        return cls(worker_id, task_id, *map(int, numbers))


class Heartbeat(NamedTuple):
    """A worker process that is ready to serve a version of a model."""

    ref: str
    """`name@version`."""
    worker_id: str
    pid: int

    def pack(self) -> str:
        return f"{self.ref}|{self.worker_id}|{self.pid}"

    @classmethod
    def unpack(cls, packed: bytes | str) -> "Heartbeat":
        ref, worker_id, pid = _text(packed).split("|")
        return cls(ref, worker_id, int(pid))


class LoadError(NamedTuple):
    """Why a worker does not serve one of its models."""

    model: str
    worker_id: str
    reason: str
    """May contain `|`."""

    def pack(self) -> str:
        return f"{self.model}|{self.worker_id}|{self.reason}"

    @classmethod
    def unpack(cls, packed: bytes | str) -> "LoadError":
        return cls(*_text(packed).split("|", 2))


Packed = TypeVar("Packed", OwnerToken, Heartbeat, LoadError)


def unpack_known(kind: type[Packed], members: Iterable[bytes]) -> list[Packed]:
    """The members in the form of this version. Others are skipped: another version of the workers may write them."""
    found = list[Packed]()
    for member in members:
        with suppress(ValueError, TypeError):
            found.append(kind.unpack(member))
    return found


def _text(packed: bytes | str) -> str:
    return packed.decode() if isinstance(packed, bytes) else packed
