#!lua
-- Changes an open job: begins one of its parts, adds a chunk to a part, ends a part, or seals the job.
-- ARGV: id, owner, part, the caller's token, ms for which the caller holds the part, ms until the job's next deadline,
--       command, then
--   'begin': nothing more. The caller becomes the part's holder, unless the part is done.
--   'add':   chunks of the part before this one, digest of the part with it, 1 if the part is done with it, skipped
--            archive entries, upload budget, record budget, pending items allowed, items allowed in the job; then,
--            unless the part only ends: key of the chunk's bytes, items, upload bytes, names, 1 if the bytes are URLs.
--   'seal':  fingerprint of the content ('' for none), skipped archive entries.
-- Returns {'ok', chunks, digest}, {'earlier', chunks, digest} for a part that is done, or {refusal, bytes over budget}.
-- A chunk that was added before is not added again: an add whose reply was lost may be repeated.
local id, owner, part, token = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local hold_ms, deadline_ms, command = ARGV[5], ARGV[6], ARGV[7]
local chunks_before, digest, is_done, skipped, uploads_max, records_max, pending_max, job_items_max
local staged, chunk_items, size, names, by_reference, fingerprint
if command == 'add' then
  chunks_before, digest, is_done, skipped, uploads_max, records_max, pending_max, job_items_max = unpack(ARGV, 8, 15)
  staged, chunk_items, size, names, by_reference = unpack(ARGV, 16, 20)
elseif command == 'seal' then
  fingerprint, skipped = ARGV[8], ARGV[9]
end
local job, now = K.job .. id, now_ms()
local state, job_owner, model, lane, items, chunks, record_bytes, stored_part = unpack(redis.call('HMGET', job, F.state,
  F.owner, F.model, F.lane, F.items, F.chunks, F.record_bytes, F.part .. part))
local holder, hold_ends, part_chunks, part_digest = nil, nil, 0, ''

local function refuse(reason)
  if staged then redis.call('UNLINK', staged) end
  return { reason }
end

if job_owner ~= owner then return refuse('absent') end
if stored_part then
  holder = string.sub(stored_part, 1, 8)
  hold_ends, part_chunks = struct.unpack('>dI4', stored_part, 9)
  part_digest = string.sub(stored_part, 21)
  if command == 'begin' and hold_ends == 0 then return { 'earlier', part_chunks, part_digest } end
end
if state == STATE.canceled then return refuse('ended') end
if state ~= STATE.open then return refuse(command == 'seal' and 'ok' or 'sealed') end

local function store_part(until_ms, number, so_far)
  redis.call('HSET', job, F.part .. part, token .. struct.pack('>dI4', until_ms, number) .. so_far)
end

local function add_skipped()
  if tonumber(skipped) > 0 then redis.call('HINCRBY', job, F.skipped, skipped) end
end

if command == 'seal' then
  if tonumber(items) == 0 then return { 'empty' } end
  if fingerprint ~= '' then redis.call('HSET', job, F.fingerprint, fingerprint) end
  add_skipped()
  seal_job(id, job)
  return { 'ok' }
end
local is_others = holder and holder ~= token
if is_others and hold_ends > now then return refuse('in_progress') end
redis.call('ZADD', K.open_deadlines, now + deadline_ms, id)
if command == 'begin' then
  store_part(now + hold_ms, part_chunks, part_digest)
  if not holder then
    redis.call('HINCRBY', job, F.record_bytes, K.chunk_record_bytes)
    add_to_stat('records', K.chunk_record_bytes)
  end
  return { 'ok', part_chunks, part_digest }
end

chunks_before = tonumber(chunks_before)
if is_others then return refuse('in_progress') end
if hold_ends == 0 or chunks_before < part_chunks then return refuse('ok') end -- it was added before
if staged then
  if items + chunk_items > tonumber(job_items_max) then return refuse('upload_too_large') end
  if redis.call('EXISTS', staged) == 0 then return { 'upload_lost' } end
  local added = K.chunk_record_bytes + stored_bytes(names)
  local counters = read_counters(records_max, pending_max)
  local refusal, over =
    admit(counters, owner, 0, tonumber(chunk_items), size + K.upload_key_bytes, added, uploads_max)
  if refusal == 'queue_full' then return { refusal, over } end -- the caller tries again: the staged bytes stay
  if refusal then return refuse(refusal) end
  write_counters(counters)
  local upload = K.upload .. id .. struct.pack('>I4', chunks)
  redis.call('RENAME', staged, upload)
  redis.call('PERSIST', upload)
  redis.call('HSET', job, F.items, items + chunk_items, F.chunks, chunks + 1, F.record_bytes, record_bytes + added,
    F.names .. chunks, names)
  local flag = by_reference == '1' and K.by_reference or 0
  make_chunk_ready(model, lane, owner, pack_chunk_ref(id, chunks, chunk_items + flag, size))
  chunks_before = chunks_before + 1
end
add_skipped()
store_part(is_done == '1' and 0 or now + hold_ms, chunks_before, digest)
return { 'ok' }
