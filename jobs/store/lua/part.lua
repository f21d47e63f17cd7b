#!lua
-- What an open job takes in: a part begins, brings a chunk, is done; the job is sealed.
-- ARGV: id, owner, part, the caller's token, ms for which it claims the part, ms until the job's next deadline,
--       what: 'begin' | 'add' | 'seal'; to begin nothing more; to seal: fingerprint of the content ('' for none), skipped;
--       to add: chunks of the part before this, digest of the part with it, 1 where the part is done, skipped,
--       upload budget, record budget, pending items allowed, items allowed in the job;
--       then, unless the part just ends: the key of its bytes, items, upload bytes, names, 1 where the bytes are URLs.
-- Returns {'ok', chunks, digest}, {'earlier', chunks, digest} for a part that is done, or {refusal, bytes over}.
-- A chunk that was added before is not added again: an add whose answer was lost may be repeated.
local id, owner, part, token, what = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[7]
local job, now = K.job .. id, now_ms()
local record = redis.call('HMGET', job, 's', 'w', 'm', 'l', 'n', 'c', 'z', 'u' .. part)
local state, chunks, digest = record[1], 0, ''
local staged = what == 'add' and ARGV[16]
local holder, held_until

local function refuse(why)
  if staged then redis.call('UNLINK', staged) end
  return { why }
end

if record[2] ~= owner then return refuse('absent') end
if record[8] then
  holder = string.sub(record[8], 1, 8)
  held_until, chunks = struct.unpack('>dI4', record[8], 9)
  digest = string.sub(record[8], 21)
  if what == 'begin' and held_until == 0 then return { 'earlier', chunks, digest } end
end
if state == 'x' then return refuse('ended') end
if state ~= 'o' then return refuse(what == 'seal' and 'ok' or 'sealed') end

local function keep(until_ms, number, so_far)
  redis.call('HSET', job, 'u' .. part, token .. struct.pack('>dI4', until_ms, number) .. so_far)
end

local function skip(skipped)
  if tonumber(skipped) > 0 then redis.call('HINCRBY', job, 'j', skipped) end
end

if what == 'seal' then
  if tonumber(record[5]) == 0 then return { 'empty' } end
  if ARGV[8] ~= '' then redis.call('HSET', job, 'v', ARGV[8]) end
  skip(ARGV[9])
  seal(id, job)
  return { 'ok' }
end
if holder and holder ~= token and held_until > now then return refuse('in_progress') end
redis.call('ZADD', K.open, now + ARGV[6], id)
if what == 'begin' then
  keep(now + ARGV[5], chunks, digest)
  if not holder then
    redis.call('HINCRBY', job, 'z', K.row_bytes)
    count('records', K.row_bytes)
  end
  return { 'ok', chunks, digest }
end

local before = tonumber(ARGV[8])
if holder and holder ~= token then return refuse('in_progress') end
if held_until == 0 or before < chunks then return refuse('ok') end -- it was added before
if staged then
  local items, size, chunk = tonumber(ARGV[17]), tonumber(ARGV[18]), tonumber(record[6])
  if record[5] + items > tonumber(ARGV[15]) then return refuse('upload_too_large') end
  if redis.call('EXISTS', staged) == 0 then return { 'upload_lost' } end
  local records = K.row_bytes + stored(ARGV[19])
  local books = open_books(ARGV[13], ARGV[14])
  local refusal, over = admit(books, owner, 0, items, size + K.chunk_bytes, records, ARGV[12])
  if refusal == 'queue_full' then return { refusal, over } end -- the caller waits, and the bytes with it
  if refusal then return refuse(refusal) end
  close_books(books)
  redis.call('RENAME', staged, K.upload .. id .. struct.pack('>I4', chunk))
  redis.call('PERSIST', K.upload .. id .. struct.pack('>I4', chunk))
  redis.call('HSET', job, 'n', record[5] + items, 'c', chunk + 1, 'z', record[7] + records, 'i' .. chunk, ARGV[19])
  local flag = ARGV[20] == '1' and K.by_reference or 0
  call_for(record[3], record[4], owner, id .. struct.pack('>I4I2I4', chunk, items + flag, size))
  before = before + 1
end
skip(ARGV[11])
keep(ARGV[10] == '1' and 0 or now + ARGV[5], before, ARGV[9])
return { 'ok' }
