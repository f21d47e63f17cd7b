#!lua
-- Accepts one job whose upload bytes are already written under a time to live, or refuses it and frees them.
-- ARGV: id, owner, model, lane, top_k, deadline (Redis ms), upload budget, record budget, pending items allowed,
--       then for each chunk: items, upload bytes, names ('' where none has one).
-- Returns {'ok', accepted ms} or {refusal}.
local id, owner, model, lane, top_k = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local deadline, uploads_max, records_max, pending_max =
  tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local job = K.job .. id
local chunks = (#ARGV - 9) / 3
local uploads, waiting, records, items = {}, 0, K.job_bytes + (chunks - 1) * K.row_bytes, 0
for chunk = 0, chunks - 1 do
  local at = 10 + chunk * 3
  uploads[#uploads + 1] = K.upload .. id .. struct.pack('>I4', chunk)
  items = items + ARGV[at]
  waiting = waiting + ARGV[at + 1] + K.chunk_bytes
  records = records + stored(ARGV[at + 2])
end

local stats = redis.call('HMGET', K.stats, 'uploads', 'records', 'pending:' .. owner, 'accepted')
for at = 1, 4 do stats[at] = tonumber(stats[at] or 0) end
local now = now_ms()
local refusal
if redis.call('EXISTS', job) == 1 then return { 'exists' } end
if now > deadline then refusal = 'late'
elseif redis.call('EXISTS', unpack(uploads)) < chunks then refusal = 'upload_lost'
elseif stats[3] + items > pending_max then refusal = 'quota_exceeded'
elseif stats[1] + waiting > uploads_max then refusal = 'queue_full'
elseif stats[2] + records > records_max then refusal = 'queue_full'
end
if refusal then
  redis.call('UNLINK', unpack(uploads))
  return { refusal }
end

local fields = { 's', 'q', 'w', owner, 'm', model, 'l', lane, 'k', top_k, 'a', now, 'n', items, 'c', chunks, 'z', records }
for chunk = 0, chunks - 1 do
  local at = 10 + chunk * 3
  redis.call('PERSIST', uploads[chunk + 1])
  make_ready(model, lane, owner, id .. struct.pack('>I4I2I4', chunk, ARGV[at], ARGV[at + 1]))
  if ARGV[at + 2] ~= '' then
    fields[#fields + 1] = 'i' .. chunk
    fields[#fields + 1] = ARGV[at + 2]
  end
end
redis.call('HSET', job, unpack(fields))
redis.call('ZADD', K.owned .. owner, stats[4] + 1, id)
redis.call('HSET', K.stats, 'uploads', stats[1] + waiting, 'records', stats[2] + records,
  'pending:' .. owner, stats[3] + items, 'accepted', stats[4] + 1)
ring(model, doorbells_max(model))
return { 'ok', now }
