#!lua flags=allow-oom
-- Deletes a job, even if it is running. ARGV: id, owner. Returns 'absent' or 'deleted'.
local id, owner = ARGV[1], ARGV[2]
local job = K.job .. id
local state, job_owner, items, succeeded, failed, chunks, record_bytes, in_spool = unpack(redis.call('HMGET', job,
  F.state, F.owner, F.items, F.succeeded, F.failed, F.chunks, F.record_bytes, F.retained_spooled))
if job_owner ~= owner then return 'absent' end
if is_live(state) then
  end_job(id, job, owner, pending_of(items, succeeded, failed), chunks, F.state, STATE.canceled)
  record_bytes = redis.call('HGET', job, F.record_bytes)
end
delete_record(id, owner)
add_to_stat('spooled', -(in_spool or 0))
add_to_stat('records', K.ended_id_bytes - record_bytes) -- its id stays in K.ended until the sweep reaches it
return 'deleted'
