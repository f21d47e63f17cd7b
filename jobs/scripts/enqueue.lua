#!lua
-- Accepts a job, or refuses it and leaves nothing. Its upload bytes are already written under a time to live; a job
-- that is open has none yet, its chunks come by part.lua.
-- ARGV: id, owner, model, lane, top_k, deadline (Redis ms), upload budget, record budget, pending items allowed; then,
--       '' for none: digest of the Idempotency-Key, fingerprint of the content, webhook, the job that is retried;
--       then items, upload bytes, names ('' where none has one);
--       for an open job: 0, ms until its deadline, what happens then ('s' seals it, 'x' cancels it).
-- Returns {'ok', accepted ms}, {'earlier', id, fingerprint} where the key made a job before, or {refusal, bytes over}.
local id, owner, model, lane, top_k = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local key, fingerprint, hook, retry_of, items = ARGV[10], ARGV[11], ARGV[12], ARGV[13], tonumber(ARGV[14])
local job, upload, open = K.job .. id, K.upload .. id .. struct.pack('>I4', 0), items == 0
local keyed = K.keyed .. owner .. ':' .. key
local now = now_ms()

local function refuse(...)
  if not open then redis.call('UNLINK', upload) end
  return { ... }
end

if redis.call('EXISTS', job) == 1 then return { 'exists' } end
if now > tonumber(ARGV[6]) then return refuse('late') end
if not open and redis.call('EXISTS', upload) == 0 then return refuse('upload_lost') end
if key ~= '' then
  local first = redis.call('GET', keyed)
  local record = first and redis.call('HMGET', K.job .. first, 's', 'v') or {}
  if record[2] then return refuse('earlier', first, record[2]) end
  if live(record[1]) then return refuse('in_progress', first) end
end
local waiting = open and 0 or ARGV[15] + K.chunk_bytes
local records = K.job_bytes + stored(hook) + stored(open and '' or ARGV[16]) + (key ~= '' and K.keyed_bytes or 0)
local refusal, number = admit(owner, 1, items, waiting, records, ARGV[7], ARGV[8], ARGV[9])
if refusal then return refuse(refusal, number) end

local fields = { 's', open and 'o' or 'q', 'w', owner, 'm', model, 'l', lane, 'k', top_k, 'a', now, 'n', items,
  'c', open and 0 or 1, 'z', records }
local function put(field, value)
  if value ~= '' then
    fields[#fields + 1] = field
    fields[#fields + 1] = value
  end
end
put('v', fingerprint)
put('h', hook)
put('o', retry_of)
if open then
  put('q', ARGV[16])
  redis.call('ZADD', K.open, now + ARGV[15], id)
else
  put('i0', ARGV[16])
  redis.call('PERSIST', upload)
  make_ready(model, lane, owner, id .. struct.pack('>I4I2I4', 0, items, ARGV[15]))
end
if key ~= '' then
  put('y', key)
  redis.call('SET', keyed, id)
end
redis.call('HSET', job, unpack(fields))
redis.call('ZADD', K.owned .. owner, number, id)
if not open then ring(model, doorbells_max(model)) end
return { 'ok', now }
