#!lua flags=allow-oom
-- Deletes a job, even if it is running. ARGV: id, owner. Returns 'absent' or 'deleted'.
local id, owner = ARGV[1], ARGV[2]
local job = K.job .. id
local state, job_owner, items, succeeded, failed, chunks, record_bytes, in_spool, in_share =
  unpack(redis.call('HMGET', job, F.state, F.owner, F.items, F.succeeded, F.failed, F.chunks, F.record_bytes,
    F.retained_spooled, F.in_share))
local sharer = in_share and owner
if job_owner ~= owner then return 'absent' end
if is_live(state) then
  end_job(id, job, owner, pending_of(items, succeeded, failed), chunks, F.state, STATE.canceled)
  record_bytes = redis.call('HGET', job, F.record_bytes)
end
delete_record(id, owner)
add_to_uploads(sharer, 0, -(in_spool or 0))
add_to_records(sharer, K.ended_id_bytes - record_bytes) -- its id stays among the ended until the sweep reaches it
if sharer and redis.call('LINDEX', K.ended_of_owner .. owner, 0) == id then
  redis.call('ZADD', K.oldest_ended, 0, owner) -- the sweep reaches it at once
end
return 'deleted'
