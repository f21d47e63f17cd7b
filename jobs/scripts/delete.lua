#!lua flags=allow-oom
-- Forgets a job, also while it runs. ARGV: id, owner. Returns 'absent' or 'deleted'.
local id, owner = ARGV[1], ARGV[2]
local job = K.job .. id
local record = redis.call('HMGET', job, 's', 'w', 'n', 'd', 'f', 'c', 'z')
if record[2] ~= owner then return 'absent' end
if live(record[1]) then
  close(id, job, owner, record[3] - (tonumber(record[4]) or 0) - (tonumber(record[5]) or 0), 's', 'x')
  trash(id, record[6])
end
redis.call('UNLINK', job)
count('records', -record[7])
trim_owned(owner)
return 'deleted'
