#!lua flags=allow-oom
-- The webhooks of jobs that have ended. ARGV: what, then
--   'ring': nothing more. Rings for outbound workers where one is due.
--   'take': ms for which the taker has them to itself, how many at most. Returns the ids of those that were due.
--   'note': id, one attempt (JSON), attempts kept, in how many ms the next one is due ('' for never).
local now = now_ms()
if ARGV[1] == 'ring' then
  return redis.call('ZCOUNT', K.hooks, '-inf', now) > 0 and ring(K.fetch, 1) or 0
end
if ARGV[1] == 'take' then
  local due = redis.call('ZRANGE', K.hooks, '-inf', now, 'BYSCORE', 'LIMIT', 0, ARGV[3])
  for _, id in ipairs(due) do redis.call('ZADD', K.hooks, now + ARGV[2], id) end
  return due
end

local id, attempt, kept_max, again = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local job = K.job .. id
local record = redis.call('HMGET', job, 'z', 'ha')
if not record[1] or again == '' then
  redis.call('ZREM', K.hooks, id)
else
  redis.call('ZADD', K.hooks, now + again, id)
end
if not record[1] then return 0 end
local attempts = cjson.decode(record[2] or '[]')
attempts[#attempts + 1] = cjson.decode(attempt)
while #attempts > kept_max do table.remove(attempts, 1) end
local packed = cjson.encode(attempts)
local more = stored(packed) - stored(record[2] or '')
redis.call('HSET', job, 'ha', packed, 'z', record[1] + more)
count('records', more)
return 1
