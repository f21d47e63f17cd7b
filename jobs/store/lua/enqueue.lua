#!lua
-- Accepts jobs, each on its own: a refused job leaves nothing behind. Upload bytes are already written under a time to
-- live. An open job has none: its chunks are added by part.lua.
-- ARGV: record budget; then 20 values for each job: id, owner, model, lane, top_k, deadline (Redis ms), upload budget,
--       budget of the spool ('' if the upload bytes are in Redis), pending items allowed for the owner; API key whose
--       items of the day are counted ('' for none) and items that it may submit a day; then, each '' for none: digest
--       of the Idempotency-Key, fingerprint of the content, webhook URL, id of the job that is retried, traceparent;
--       then record bytes to set aside for the result of an item; then number of items, upload bytes, names ('' if no
--       item has one); for an open job: 0, ms until its deadline, ''.
-- Returns for each job {'ok', accepted ms, items of the day if they are counted}, {'earlier', id, fingerprint} if the
-- Idempotency-Key made a job before, or {refusal, bytes over budget or share, or items of the day}. What the jobs
-- have in common is read once and written once.
local now = now_ms()
local counters = read_counters(ARGV[1], now)
local ready_lists, owner_jobs, doorbells = {}, {}, {}

local function enqueue(id, owner, model, lane, top_k, deadline, uploads_max, spool_max, pending_max, key_id,
                       items_a_day, key_digest, fingerprint, webhook_url, retry_of, traceparent, result_bytes, items, size,
                       names)
  local job, upload = K.job .. id, K.upload .. id .. struct.pack('>I4', 0)
  local idempotency_key = K.idempotency_key .. owner .. ':' .. key_digest
  local is_open = items == '0'

  local function refuse(...)
    if not is_open then redis.call('UNLINK', upload) end
    return { ... }
  end

  if redis.call('EXISTS', job) == 1 then return { 'exists' } end
  if now > tonumber(deadline) then return refuse('late') end
  if not is_open and redis.call('PERSIST', upload) == 0 then return refuse('upload_lost') end
  if key_digest ~= '' then
    local first = redis.call('GET', idempotency_key)
    if first then
      local state, first_fingerprint = unpack(redis.call('HMGET', K.job .. first, F.state, F.fingerprint))
      if first_fingerprint then return refuse('earlier', first, first_fingerprint) end
      if is_live(state) then return refuse('in_progress', first) end
    end
  end
  local sharer = owner ~= K.owner_of_all and owner
  local record_bytes = K.job_record_bytes + stored_bytes(webhook_url) + stored_bytes(traceparent)
    + stored_bytes(is_open and '' or names)
    + (key_digest ~= '' and K.idempotency_key_bytes or 0)
    + items * result_bytes
  local refusal, number, used = admit(counters, owner, sharer, 1, tonumber(items), not is_open and size or nil,
    record_bytes, uploads_max, spool_max, pending_max, key_id, items_a_day)
  if refusal then return refuse(refusal, number) end

  local fields = { F.state, is_open and STATE.open or STATE.queued, F.owner, owner, F.model, model, F.lane, lane,
    F.top_k, top_k, F.accepted_ms, now, F.items, items, F.chunks, is_open and 0 or 1, F.record_bytes, record_bytes }
  local function put(field, value)
    if value ~= '' then
      fields[#fields + 1] = field
      fields[#fields + 1] = value
    end
  end
  if sharer then put(F.in_share, 1) end
  put(F.fingerprint, fingerprint)
  put(F.webhook_url, webhook_url)
  put(F.retry_of, retry_of)
  put(F.traceparent, traceparent)
  if result_bytes ~= '0' then put(F.result_bytes, result_bytes) end
  if is_open then
    redis.call('ZADD', K.open_deadlines, now + size, id) -- an open job has the ms until its deadline there
  else
    put(F.names .. '0', names)
    local lane_name = model .. ':' .. lane
    local ready = ready_lists[lane_name .. ':' .. owner] or { lane_name = lane_name, owner = owner, chunk_refs = {} }
    ready_lists[lane_name .. ':' .. owner] = ready
    ready.chunk_refs[#ready.chunk_refs + 1] = pack_chunk_ref(id, 0, items + (spool_max ~= '' and K.spooled or 0), size)
    doorbells[model] = (doorbells[model] or 0) + 1
  end
  if key_digest ~= '' then
    put(F.key_digest, key_digest)
    redis.call('SET', idempotency_key, id)
  end
  redis.call('HSET', job, unpack(fields))
  local numbered_ids = owner_jobs[owner] or {}
  owner_jobs[owner] = numbered_ids
  numbered_ids[#numbered_ids + 1] = number
  numbered_ids[#numbered_ids + 1] = id
  return { 'ok', now, used }
end

local outcomes = {}
for at = 2, #ARGV, 20 do outcomes[#outcomes + 1] = enqueue(unpack(ARGV, at, at + 19)) end
write_counters(counters)
for owner, numbered_ids in pairs(owner_jobs) do redis.call('ZADD', K.owner_jobs .. owner, unpack(numbered_ids)) end
for _, ready in pairs(ready_lists) do push_ready(ready.lane_name, ready.owner, ready.chunk_refs) end
for model, times in pairs(doorbells) do ring_doorbell(model, doorbells_max(model), times) end
return outcomes
