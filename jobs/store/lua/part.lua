#!lua
-- Changes an open job: begins one of its parts, adds a chunk to a part, or ends a part.
-- ARGV: id, owner, part, the caller's token, ms for which the caller holds the part, ms until the job's next deadline,
--       command, then
--   'begin': record budget. The caller becomes the part's holder, or stays it, unless the part is done.
--   'add':   chunks of the part before this one, digest of the part with it, 1 if the part is done with it, skipped
--            archive entries, upload budget, budget of the spool ('' if the bytes are in Redis), record budget, items
--            allowed in the job, pending items allowed, API key whose items of the day are counted ('' for none), items
--            that it may submit a day; then, unless the part only ends: key of the chunk's bytes, items, upload bytes,
--            names, 1 if the bytes are URLs, the lane that the job gets if this is its first chunk.
-- Returns {'ok', chunks, digest}; of an add {'ok', items of the day if they are counted}; {'earlier', chunks, digest}
-- for a part that is done; or {refusal, bytes over budget or share, or items of the day}.
-- A chunk that was added before is not added again: an add whose reply was lost may be repeated. 'lost' refuses what does
-- not continue the job here: the server has lost its last writes since.
local id, owner, part, token = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local hold_ms, deadline_ms, command = ARGV[5], ARGV[6], ARGV[7]
local chunks_before, digest, is_done, skipped, uploads_max, spool_max, records_max, job_items_max
local pending_max, key_id, items_a_day, staged, chunk_items, size, names, by_reference, first_lane
if command == 'add' then
  chunks_before, digest, is_done, skipped, uploads_max, spool_max, records_max, job_items_max = unpack(ARGV, 8, 15)
  pending_max, key_id, items_a_day, staged, chunk_items, size, names, by_reference, first_lane = unpack(ARGV, 16, 24)
end
local job, now = K.job .. id, now_ms()
local state, job_owner, model, lane, items, chunks, record_bytes, result_bytes, in_share, stored_part =
  unpack(redis.call('HMGET', job, F.state, F.owner, F.model, F.lane, F.items, F.chunks, F.record_bytes, F.result_bytes,
    F.in_share, F.part .. part))
local sharer = in_share and owner
local holder, hold_ends, part_chunks, part_digest = nil, nil, 0, ''

local function refuse(...)
  if staged then redis.call('UNLINK', staged) end
  return { ... }
end

if job_owner ~= owner then return refuse('absent') end
if stored_part then
  holder = string.sub(stored_part, 1, 8)
  hold_ends, part_chunks = struct.unpack('>dI4', stored_part, 9)
  part_digest = string.sub(stored_part, 21)
  if command == 'begin' and hold_ends == 0 then return { 'earlier', part_chunks, part_digest } end
end
if state == STATE.canceled then return refuse('ended') end
if state ~= STATE.open then return refuse('sealed') end

local function store_part(until_ms, number, so_far)
  redis.call('HSET', job, F.part .. part, token .. struct.pack('>dI4', until_ms, number) .. so_far)
end

local is_others = holder and holder ~= token
if is_others and hold_ends > now then return refuse('in_progress') end
redis.call('ZADD', K.open_deadlines, now + deadline_ms, id)
if command == 'begin' then
  if not holder then
    local counters = read_counters(ARGV[8], now)
    local refusal = refusal_of_records(counters, read_owner(counters, owner), K.chunk_record_bytes, sharer)
    if refusal then return { refusal, 0 } end
    redis.call('HINCRBY', job, F.record_bytes, K.chunk_record_bytes)
    add_to_records(sharer, K.chunk_record_bytes)
  end
  store_part(now + hold_ms, part_chunks, part_digest)
  return { 'ok', part_chunks, part_digest }
end

chunks_before = tonumber(chunks_before)
if is_others then return refuse('in_progress') end
if chunks_before > part_chunks then return refuse('lost') end
if hold_ends == 0 or chunks_before < part_chunks then return refuse('ok') end -- it was added before
local used = nil
if staged then
  if items + chunk_items > tonumber(job_items_max) then return refuse('upload_too_large') end
  if redis.call('EXISTS', staged) == 0 then return { 'upload_lost' } end
  local added = K.chunk_record_bytes + stored_bytes(names) + chunk_items * (result_bytes or 0)
  local counters = read_counters(records_max, now)
  local refusal, number
  refusal, number, used = admit(counters, owner, sharer, 0, tonumber(chunk_items), size, added, uploads_max, spool_max,
    pending_max, key_id, items_a_day)
  if refusal == 'queue_full' or refusal == 'share_full' then
    return { refusal, number } -- the caller tries again: the staged bytes stay
  end
  if refusal then return refuse(refusal, number) end
  write_counters(counters)
  if chunks == '0' and first_lane ~= lane then
    lane = first_lane
    redis.call('HSET', job, F.lane, lane)
  end
  local upload = K.upload .. id .. struct.pack('>I4', chunks)
  redis.call('RENAME', staged, upload)
  redis.call('PERSIST', upload)
  redis.call('HSET', job, F.items, items + chunk_items, F.chunks, chunks + 1, F.record_bytes, record_bytes + added,
    F.names .. chunks, names, F.active_ms, now)
  local flag = by_reference == '1' and K.by_reference or spool_max ~= '' and K.spooled or 0
  make_chunk_ready(model, lane, owner, pack_chunk_ref(id, chunks, chunk_items + flag, size))
  chunks_before = chunks_before + 1
end
if tonumber(skipped) > 0 then redis.call('HINCRBY', job, F.skipped, skipped) end
store_part(is_done == '1' and 0 or now + hold_ms, chunks_before, digest)
return { 'ok', used }
