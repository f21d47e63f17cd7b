-- Shared by every script. K.*, F.*, STATE.* and LANE.* are constants: jobs/store/scripts.py puts the values of
-- jobs/store/keys.py and jobs/records.py in their place.
--
-- Key layout. ID is a job's 16 raw bytes, CHUNK a chunk's number as 4 bytes; <model> is name, name@version or K.fetch.
--   K.job ID                            hash    the record; its fields are F.*, some with a chunk's number behind it
--   K.upload ID CHUNK                   string  a chunk's packed upload bytes, or a pointer to the file that has them
--   K.ready <model>:<lane>:<owner>      list    chunk references that wait, oldest first; the suspects, which run alone,
--                                               have a lane of their own, K.suspect_lane
--   K.rotation <model>:<lane>           list    owners with ready chunks, the next one first
--   K.suspects <model>                  list    suspects that earlier releases left
--   K.leases                            zset    owner token by the lease's end, ms
--   K.leased_chunks <owner token>       set     chunk references under this lease
--   K.suspect_item                      hash    owner token to the item that a suspect run has reached, -1 before the
--                                               first, K.suspect_paused while its process does other work
--   K.owners                            zset    owners by the record bytes of their jobs in shares
--   K.ended_of_owner <owner>            list    IDs of the owner's ended jobs in shares, oldest first
--   K.oldest_ended                      zset    owners by the end of the first job of that list, ms
--   K.ended                             list    IDs of other ended jobs, oldest first
--   K.owner_jobs <owner>                zset    IDs by the job's number among all accepted jobs
--   K.open_deadlines                    zset    IDs of open jobs by deadline, ms
--   K.idempotency_key <owner>:<digest>  string  ID
--   K.webhooks_due                      zset    IDs by the time of the next webhook call, ms
--   K.trash                             list    ID, first chunk (4 bytes), number of chunks (4 bytes), sharer or ''
--   K.stats                             hash    uploads, spooled, records, accepted, transitions, drained,
--                                               pending:<owner>, uploads:<owner>, spooled:<owner>
--   K.queue <model>                     list    doorbells: Celery messages
--   K.doorbell_template <model>         string  such a message, K.doorbell_placeholder in place of its id
--   K.doorbell_counter                  string  counts doorbells
--   K.wake <model>                      list    one element if a lingering child process shall claim
--   K.heartbeats <name>                 zset    ref|worker|pid of ready processes by the heartbeat's end, ms
--   K.model_cards                       hash    name@version to its card
--   K.items_of_day <key id>:<UTC day>   string  items accepted with an API key, until an hour after the day
-- A chunk reference is 26 bytes: job id (16), chunk number (4), items (2), upload bytes (4), big-endian; the highest
-- bit of items says that the upload holds URLs, which an outbound worker fetches first; the next one (K.spooled) that
-- its bytes are in a file outside Redis. Scripts count the bytes of files and leave the files to others.
--
-- A job with F.in_share counts in its owner's shares of the budgets; its owner is then its sharer. Other jobs have none
-- (nil or false): those of K.owner_of_all, who may have everything, and those that an earlier release accepted.

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function is_live(state)
  return state == STATE.open or state == STATE.queued or state == STATE.running
end

local function add_to_stat(name, by)
  if by ~= 0 then redis.call('HINCRBY', K.stats, name, by) end
end

-- How many of a job's items have not ended; `succeeded` and `failed` are false while they are 0.
local function pending_of(items, succeeded, failed)
  return items - (tonumber(succeeded) or 0) - (tonumber(failed) or 0)
end

local function pack_chunk_ref(id, chunk, items, size)
  return id .. struct.pack('>I4I2I4', chunk, items, size)
end

-- Returns job id, chunk number, number of items, upload bytes.
local function unpack_chunk_ref(chunk_ref)
  local chunk, items, size = struct.unpack('>I4I2I4', chunk_ref, 17)
  return string.sub(chunk_ref, 1, 16), chunk, items % K.spooled, size
end

-- The size of the file that a value of K.upload or F.retained points to, or nil if the value has the bytes itself.
local function spooled_size(value)
  return tonumber(string.match(value, '^spool %S+ (%d+) '))
end

-- What an upload of so many bytes takes of the upload budget, and of the spool's.
local function upload_cost(size, spooled)
  if spooled then return K.upload_key_bytes + K.pointer_bytes, tonumber(size) end
  return K.upload_key_bytes + size, 0
end

-- Whose queue a chunk goes into: its job's model, or K.fetch while its upload holds URLs.
local function consumer_of(chunk_ref, model)
  return string.byte(chunk_ref, 21) >= 128 and K.fetch or model
end

-- The memory that a string takes in a record: allocators round up, by at most a fifth.
local function stored_bytes(text)
  return math.ceil(#text * 1.2)
end

-- Adds to an owner's share of uploads or of the spool. Not below 0: an earlier release counts none.
local function add_to_share(name, sharer, by)
  local field = name .. ':' .. sharer
  if by ~= 0 and redis.call('HINCRBY', K.stats, field, by) < 0 then redis.call('HSET', K.stats, field, 0) end
end

local function add_to_uploads(sharer, upload_bytes, spool_bytes)
  add_to_stat('uploads', upload_bytes)
  add_to_stat('spooled', spool_bytes)
  if sharer then
    add_to_share('uploads', sharer, upload_bytes)
    add_to_share('spooled', sharer, spool_bytes)
  end
end

local function add_to_records(sharer, by)
  add_to_stat('records', by)
  if sharer and by ~= 0 and tonumber(redis.call('ZINCRBY', K.owners, by, sharer)) <= 0 then
    redis.call('ZREM', K.owners, sharer)
  end
end

-- Whether an owner who has `own` bytes of a budget may have `added` more, if `free` are left of it: he may have at most
-- what is left for others after it. Who has nothing may take what is left. `own` is nil without shares.
local function is_in_share(own, added, free)
  return not own or own <= 0 or added <= 0 or own + added <= free - added
end

-- Pushes chunks into an owner's ready list of a lane ('model:lane'). If the list was empty, the owner joins the
-- rotation.
local function push_ready(lane_name, owner, chunk_refs, at_head)
  local key = K.ready .. lane_name .. ':' .. owner
  if redis.call(at_head and 'LPUSH' or 'RPUSH', key, unpack(chunk_refs)) == #chunk_refs then
    redis.call('RPUSH', K.rotation .. lane_name, owner)
  end
end

local function has_suspects(model)
  return redis.call('EXISTS', K.rotation .. model .. ':' .. K.suspect_lane, K.suspects .. model) > 0
end

local function has_ready(model)
  local interactive, bulk = K.rotation .. model .. ':' .. LANE.interactive, K.rotation .. model .. ':' .. LANE.bulk
  return redis.call('EXISTS', interactive, bulk) > 0 or has_suspects(model)
end

-- Wakes one lingering child process, or the next one that is about to linger.
local function wake_lingering(model)
  local key = K.wake .. model
  if model ~= K.fetch and redis.call('EXISTS', key) == 0 then redis.call('RPUSH', key, 1) end
end

-- Rings the doorbell `times` times (1 if nil), as long as fewer than `most` doorbells wait. Workers write the template
-- when they start: before the first worker there is none, and the worker's own sweep rings for the chunks that wait.
local function ring_doorbell(model, most, times)
  wake_lingering(model)
  local queue = K.queue .. model
  local rings = math.min(most - redis.call('LLEN', queue), times or 1)
  local template = rings > 0 and redis.call('GET', K.doorbell_template .. model)
  if not template then return end
  for _ = 1, rings do
    local bell_id = model .. '-' .. redis.call('INCR', K.doorbell_counter)
    redis.call('LPUSH', queue, (string.gsub(template, K.doorbell_placeholder, bell_id)))
  end
end

-- Processes send heartbeats under the model's name, whichever versions they serve.
local function doorbells_max(model)
  return math.max(2, redis.call('ZCARD', K.heartbeats .. (string.match(model, '^([^@]+)@') or model)))
end

-- Makes one chunk ready and rings the doorbell of its consumer.
local function make_chunk_ready(model, lane, owner, chunk_ref, at_head)
  local consumer = consumer_of(chunk_ref, model)
  push_ready(consumer .. ':' .. lane, owner, { chunk_ref }, at_head)
  ring_doorbell(consumer, doorbells_max(consumer))
end

-- Ends a lease that has no chunks left.
local function drop_lease_if_empty(token)
  if redis.call('EXISTS', K.leased_chunks .. token) == 0 then
    redis.call('ZREM', K.leases, token)
    redis.call('HDEL', K.suspect_item, token)
  end
end

-- A completion notice, as `unpack_notices` in jobs/store/notices.py reads it; the payload is '' unless the job is one
-- image.
local function pack_notice(id, payload)
  return id .. struct.pack('>I2', #payload) .. payload
end

-- Lists jobs that have ended just now, all of one sharer or of none. Their records expire in this order.
local function list_ended(sharer, ids, now)
  if not sharer then
    redis.call('RPUSH', K.ended, unpack(ids))
  elseif redis.call('RPUSH', K.ended_of_owner .. sharer, unpack(ids)) == #ids then
    redis.call('ZADD', K.oldest_ended, now, sharer)
  end
end

-- Publishes that a job has ended and makes its webhook due.
local function announce_end(id, sharer, webhook_url)
  local now = now_ms()
  list_ended(sharer, { id }, now)
  redis.call('PUBLISH', K.channel, pack_notice(id, ''))
  if webhook_url then redis.call('ZADD', K.webhooks_due, now, id) end
end

-- Seals an open job: it takes no more parts, and ends now if all its items have ended.
local function seal_job(id, job)
  local items, succeeded, failed, started, webhook_url, owner, in_share = unpack(redis.call('HMGET', job, F.items,
    F.succeeded, F.failed, F.started_ms, F.webhook_url, F.owner, F.in_share))
  redis.call('ZREM', K.open_deadlines, id)
  if pending_of(items, succeeded, failed) == 0 then
    local state = tonumber(succeeded or 0) > 0 and STATE.completed or STATE.failed
    redis.call('HSET', job, F.state, state, F.ended_ms, now_ms())
    announce_end(id, in_share and owner, webhook_url)
  else
    redis.call('HSET', job, F.state, started and STATE.running or STATE.queued)
  end
end

-- Ends a live job with pending items, which take the state that the given fields (name, value, ...) imply. The sweep
-- frees the upload bytes of its chunks, in slices: nothing else frees those of a job that is not live.
local function end_job(id, job, owner, pending, chunks, ...)
  local record_bytes, result_bytes, webhook_url, in_share =
    unpack(redis.call('HMGET', job, F.record_bytes, F.result_bytes, F.webhook_url, F.in_share))
  local freed = pending * (result_bytes or 0)
  local sharer = in_share and owner
  add_to_records(sharer, -freed)
  redis.call('HSET', job, F.ended_ms, now_ms(), F.record_bytes, record_bytes - freed, ...)
  redis.call('ZREM', K.open_deadlines, id)
  redis.call('RPUSH', K.trash, id .. struct.pack('>I4I4', 0, chunks) .. (sharer or ''))
  add_to_stat('transitions', pending)
  add_to_stat('pending:' .. owner, -pending)
  announce_end(id, sharer, webhook_url)
end

-- Deletes what refers to a job: its Idempotency-Key, and its place among the webhooks that are due.
local function delete_references(id, owner, key_digest, webhook_url)
  local key = key_digest and K.idempotency_key .. owner .. ':' .. key_digest
  if key and redis.call('GET', key) == id then redis.call('UNLINK', key) end
  if webhook_url then redis.call('ZREM', K.webhooks_due, id) end
end

local function delete_record(id, owner)
  delete_references(id, owner, unpack(redis.call('HMGET', K.job .. id, F.key_digest, F.webhook_url)))
  redis.call('UNLINK', K.job .. id)
  redis.call('ZREM', K.owner_jobs .. owner, id)
end
