"""Every name that stands in Redis or in a Celery message: keys, queues, the task, the channel.

Python and Lua read the same names: `lua_prelude` writes this table into the head of every script.
`ID` is a job's 16 raw bytes, `CHUNK` its chunk's number as four big-endian bytes.
"""

from typing import Final

TASK: Final = "classify"
OUTBOUND_TASK: Final = "outbound"  # fetch what chunks refer to, call the webhooks that are due
QUEUE: Final = "darkroom."  # + model, a name or name@version: the Celery queue that carries this model's doorbells
BELL_PLACEHOLDER: Final = "BELLID"  # stands in a doorbell template where its unique id goes
ENDED_CHANNEL: Final = "darkroom.notices"  # + the database's number, which pub/sub ignores: see `unpack_notices`

JOB: Final = "j:"  # + ID, hash: the record, its results, its chunks' names
UPLOAD: Final = "b:"  # + ID CHUNK, string: one chunk's packed upload bytes
READY: Final = "q:"  # + model:lane:owner, list: chunks that wait, oldest first
RING: Final = "ring:"  # + model:lane, list: owners with ready chunks, the next one first
SUSPECTS: Final = "suspect:"  # + model, list: chunks that were held when a worker's child died
LEASES: Final = "leases"  # sorted set: owner token by the lease's end, Redis time in ms
LEASE: Final = "l:"  # + owner token, set: the chunks that this lease holds
SUSPECT_AT: Final = "suspect_at"  # hash: owner token to the item a suspect run has reached, -1 before the first
ENDED: Final = "ended"  # list: IDs of ended jobs, oldest first; a deleted job's too, until it gets to the head
OWNED: Final = "jobs:"  # + owner, sorted set: IDs of this owner's jobs by their number among all that were accepted
OPEN: Final = "open"  # sorted set: IDs of jobs that take more parts, by their deadline, Redis time in ms
KEYED: Final = "k:"  # + owner:DIGEST, string: ID of the job that an Idempotency-Key made; it goes with that job
HOOKS: Final = "hooks"  # sorted set: IDs of ended jobs whose webhook is to be called, by when, Redis time in ms
TRASH: Final = "trash"  # list: jobs whose upload bytes are to be dropped
STATS: Final = (
    "stats"  # hash: upload bytes, record bytes, accepted jobs, ended and an owner's pending items, drained bytes
)
BELL: Final = "bell:"  # + model, string: the doorbell's template
WAKE: Final = "wake:"  # + model, list of one: a child that lingers waits for it, as nearer than the doorbell
BELLS: Final = "bells"  # counter: makes every doorbell's id unique
SERVING: Final = "serving:"  # + name, sorted set: ready worker children of all its versions by their presence's end
FAULTS: Final = "faults"  # sorted set: model|worker|why it does not serve that model, by the end of its saying so
MODELS: Final = "models"  # hash: name@version to the model's card
SIGNING: Final = "secret"  # string: the key that signs job ids
WRITE_PROBE: Final = "write_probe"  # string with a short life: shows that the server takes writes

FETCH: Final = "@fetch"  # in place of a model's name: chunks of URLs are served by outbound workers first

# What the record budget counts, beyond the strings; tests/integration/jobs/store/test_memory.py measures it.
JOB_BYTES: Final = 350  # a job of one chunk, in the listpack that jobs/store/server_check.py asks for
ROW_BYTES: Final = 190  # each further chunk of it, many of which make a hash table
ENDED_BYTES: Final = 20  # an id among the ended
KEYED_BYTES: Final = 160  # an Idempotency-Key's own key
CHUNK_BYTES: Final = 96  # what a chunk's upload key costs beyond its bytes


def lua_prelude(database: int) -> str:
    """The `K` table for the scripts of one Redis database."""
    names = {
        "queue": QUEUE,
        "placeholder": BELL_PLACEHOLDER,
        "channel": f"{ENDED_CHANNEL}.{database}",
        "job": JOB,
        "upload": UPLOAD,
        "ready": READY,
        "ring": RING,
        "suspects": SUSPECTS,
        "leases": LEASES,
        "lease": LEASE,
        "suspect_at": SUSPECT_AT,
        "ended": ENDED,
        "owned": OWNED,
        "open": OPEN,
        "keyed": KEYED,
        "hooks": HOOKS,
        "fetch": FETCH,
        "trash": TRASH,
        "stats": STATS,
        "bell": BELL,
        "bells": BELLS,
        "wake": WAKE,
        "serving": SERVING,
        "models": MODELS,
    }
    fields = [f"{name}='{value}'" for name, value in names.items()]
    fields += [
        f"job_bytes={JOB_BYTES}",
        f"row_bytes={ROW_BYTES}",
        f"ended_bytes={ENDED_BYTES}",
        f"keyed_bytes={KEYED_BYTES}",
        f"by_reference={0x8000}",
        f"chunk_bytes={CHUNK_BYTES}",
    ]
    return f"local K = {{{','.join(fields)}}}\n"
