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
local uploads, records, items = {}, K.job_bytes, 0
local waiting = 0
for chunk = 0, chunks - 1 do
  local at = 10 + chunk * 3
  uploads[#uploads + 1] = K.upload .. id .. struct.pack('>I4', chunk)
  items = items + ARGV[at]
  waiting = waiting + ARGV[at + 1] + K.chunk_bytes
  records = records + #ARGV[at + 2]
end

local stats = redis.call('HMGET', K.stats, 'uploads', 'records', 'pending:' .. owner)
local now = now_ms()
local refusal
if redis.call('EXISTS', job) == 1 then return { 'exists' } end
if now > deadline then refusal = 'late'
elseif redis.call('EXISTS', unpack(uploads)) < chunks then refusal = 'upload_lost'
elseif (tonumber(stats[3]) or 0) + items > pending_max then refusal = 'quota_exceeded'
elseif (tonumber(stats[1]) or 0) + waiting > uploads_max then refusal = 'queue_full'
elseif (tonumber(stats[2]) or 0) + records > records_max then refusal = 'queue_full'
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
redis.call('RPUSH', K.owned .. owner, id)
count('uploads', waiting)
count('records', records)
count('pending:' .. owner, items)
ring(model, doorbells_max(model))
return { 'ok', now }
