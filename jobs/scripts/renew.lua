#!lua flags=allow-oom
-- Extends a lease that is still held. ARGV: owner token, lease ms, item that a suspect run starts next ('' if none).
-- Returns 1, or 0 where the lease is gone.
if redis.call('EXISTS', K.lease .. ARGV[1]) == 0 then return 0 end
redis.call('ZADD', K.leases, now_ms() + tonumber(ARGV[2]), ARGV[1])
if ARGV[3] ~= '' then redis.call('HSET', K.suspect_at, ARGV[1], ARGV[3]) end
return 1
