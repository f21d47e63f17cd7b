#!lua flags=allow-oom
-- Seals an open job: it takes no more parts, and ends now if all its items have ended. Has no effect on a sealed job, so
-- it may be repeated. Allowed when Redis is out of memory: it writes nothing of size.
-- ARGV: id, owner, fingerprint of the content ('' for none), skipped archive entries, chunks that the job must have (''
--       if the caller does not know).
-- Returns 'ok'; 'absent', 'ended', 'empty', or 'lost' if it has other chunks: the server has lost its last writes.
local id, owner, fingerprint, skipped, chunks_expected = unpack(ARGV)
local job = K.job .. id
local state, job_owner, items, chunks = unpack(redis.call('HMGET', job, F.state, F.owner, F.items, F.chunks))
if job_owner ~= owner then return 'absent' end
if state == STATE.canceled then return 'ended' end
if state ~= STATE.open then return 'ok' end
if chunks_expected ~= '' and tonumber(chunks_expected) ~= tonumber(chunks) then return 'lost' end
if tonumber(items) == 0 then return 'empty' end
if fingerprint ~= '' then redis.call('HSET', job, F.fingerprint, fingerprint) end
if tonumber(skipped) > 0 then redis.call('HINCRBY', job, F.skipped, skipped) end
seal_job(id, job)
return 'ok'
