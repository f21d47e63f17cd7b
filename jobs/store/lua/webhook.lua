#!lua flags=allow-oom
-- The webhooks of ended jobs. ARGV: command, then
--   'take': ms for which the caller has them to itself, how many at most. Returns the ids of webhooks that were due.
--   'record': id, one attempt (JSON), attempts to keep, ms until the next one ('' for never).
--             Returns 1, or 0 if the job is gone.
local command = ARGV[1]
local now = now_ms()
if command == 'take' then
  local take_ms, limit = ARGV[2], ARGV[3]
  local due = redis.call('ZRANGE', K.webhooks_due, '-inf', now, 'BYSCORE', 'LIMIT', 0, limit)
  for _, id in ipairs(due) do redis.call('ZADD', K.webhooks_due, now + take_ms, id) end
  return due
end

local id, attempt, attempts_max, next_ms = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local job = K.job .. id
local record_bytes, owner, in_share, before =
  unpack(redis.call('HMGET', job, F.record_bytes, F.owner, F.in_share, F.webhook_attempts))
if not record_bytes or next_ms == '' then
  redis.call('ZREM', K.webhooks_due, id)
else
  redis.call('ZADD', K.webhooks_due, now + next_ms, id)
end
if not record_bytes then return 0 end
local attempts = cjson.decode(before or '[]')
attempts[#attempts + 1] = cjson.decode(attempt)
while #attempts > attempts_max do table.remove(attempts, 1) end
local packed = cjson.encode(attempts)
local added = stored_bytes(packed) - stored_bytes(before or '')
redis.call('HSET', job, F.webhook_attempts, packed, F.record_bytes, record_bytes + added)
add_to_records(in_share and owner, added)
return 1
