#!lua flags=allow-oom
-- Forgets a job, also while it runs. ARGV: id, owner. Returns 'absent' or 'deleted'.
local id, owner, job = ARGV[1], ARGV[2], K.job .. ARGV[1]
local record = redis.call('HMGET', job, 's', 'w', 'n', 'd', 'f', 'c', 'z')
if record[2] ~= owner then return 'absent' end
if live(record[1]) then
  close(id, job, owner, record[3] - (tonumber(record[4]) or 0) - (tonumber(record[5]) or 0), record[6], 's', 'x')
end
forget(id, owner)
count('records', K.ended_bytes - record[7]) -- its id stays among the ended until the sweep comes to it
return 'deleted'
