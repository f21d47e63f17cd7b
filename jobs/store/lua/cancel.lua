#!lua flags=allow-oom
-- Cancels what has not ended, whatever the job's size. ARGV: id, owner. Returns 'absent', 'ended' or 'canceled'.
local id, owner, job = ARGV[1], ARGV[2], K.job .. ARGV[1]
local record = redis.call('HMGET', job, 's', 'w', 'n', 'd', 'f', 'c')
if record[2] ~= owner then return 'absent' end
if not live(record[1]) then return 'ended' end
close(id, job, owner, record[3] - (tonumber(record[4]) or 0) - (tonumber(record[5]) or 0), record[6], 's', 'x')
return 'canceled'
