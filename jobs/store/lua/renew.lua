#!lua flags=allow-oom
-- Extends a lease that is still held, and shows that a process is ready to serve.
-- ARGV: owner token, lease ms, then '' or the item that a suspect run starts next (-1: its chunks shall run as
--       suspects), and '' or the packed outcomes of the items before it, which the chunk's next lease goes on from;
--       then, to show presence: model, process, for how many ms. The token is '' where no lease is held.
-- Returns 1, or 0 where the lease is gone.
if ARGV[5] then redis.call('ZADD', K.serving .. ARGV[5], now_ms() + tonumber(ARGV[7]), ARGV[6]) end
if redis.call('EXISTS', K.lease .. ARGV[1]) == 0 then return 0 end
redis.call('ZADD', K.leases, now_ms() + tonumber(ARGV[2]), ARGV[1])
if ARGV[3] ~= '' then redis.call('HSET', K.suspect_at, ARGV[1], ARGV[3]) end
if ARGV[4] ~= '' then
  local id, chunk = unpack_entry(redis.call('SRANDMEMBER', K.lease .. ARGV[1]))
  local record = redis.call('HMGET', K.job .. id, 's', 'z', 'p' .. chunk)
  if live(record[1]) then
    local more = stored(ARGV[4]) - stored(record[3] or '')
    redis.call('HSET', K.job .. id, 'p' .. chunk, ARGV[4], 'z', record[2] + more)
    count('records', more)
  end
end
return 1
