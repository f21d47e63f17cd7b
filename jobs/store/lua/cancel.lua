#!lua flags=allow-oom
-- Cancels the items of a job that have not ended, in constant time. ARGV: id, owner, 1 to cancel an open job only.
-- Returns 'absent', 'ended', 'sealed' or 'canceled'.
local id, owner, only_open = ARGV[1], ARGV[2], ARGV[3] == '1'
local job = K.job .. id
local state, job_owner, items, succeeded, failed, chunks =
  unpack(redis.call('HMGET', job, F.state, F.owner, F.items, F.succeeded, F.failed, F.chunks))
if job_owner ~= owner then return 'absent' end
if only_open and state ~= STATE.open and state ~= STATE.canceled then return 'sealed' end
if not is_live(state) then return 'ended' end
end_job(id, job, owner, pending_of(items, succeeded, failed), chunks, F.state, STATE.canceled)
return 'canceled'
