#!lua
-- Puts the images that were fetched in the place of a chunk's URLs, and makes the chunk ready for its job's model.
-- ARGV: owner token, entry, upload budget, bytes of the packed images, the key where they are written under a time to
--       live; without that key this only tells whether there would be room.
-- Returns 'ok' or why not: 'queue_full', 'upload_lost', 'lost' where this owner holds the chunk no longer or its job
-- has ended.
local token, entry, uploads_max, size, staged = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local lease = K.lease .. token
local id, chunk, items, before = unpack_entry(entry)
local job = K.job .. id
local record = redis.call('HMGET', job, 's', 'w', 'm', 'l')

local function refuse(why)
  if staged then redis.call('UNLINK', staged) end
  return why
end

if redis.call('SISMEMBER', lease, entry) == 0 then return refuse('lost') end
if live(record[1]) then
  -- Bytes that are written ahead count from here on; each of those who fetch is taken to write as many right now.
  local writers = math.max(1, redis.call('ZCARD', K.serving .. K.fetch))
  local waiting = (tonumber(redis.call('HGET', K.stats, 'uploads')) or 0) + size * writers - before
  -- Where no image waits for the model none would make room: URLs that fill the budget would stay for ever.
  if waiting > uploads_max and has_ready(record[3]) then return refuse('queue_full') end
  if not staged then return 'ok' end
  if redis.call('EXISTS', staged) == 0 then return 'upload_lost' end
end
redis.call('SREM', lease, entry)
if redis.call('EXISTS', lease) == 0 then
  redis.call('ZREM', K.leases, token)
  redis.call('HDEL', K.suspect_at, token)
end
if not live(record[1]) then
  drop_upload(entry, before)
  return refuse('lost')
end
local upload = K.upload .. string.sub(entry, 1, 20)
redis.call('RENAME', staged, upload)
redis.call('PERSIST', upload)
count('uploads', size - before)
redis.call('HDEL', job, 'x' .. chunk) -- what befell those who fetched is nothing to those who classify
call_for(record[3], record[4], record[2], id .. struct.pack('>I4I2I4', chunk, items, size))
return 'ok'
