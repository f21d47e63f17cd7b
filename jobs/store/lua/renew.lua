#!lua flags=allow-oom
-- Extends a lease, and records the heartbeat of a process that is ready to serve.
-- ARGV: owner token ('' for a heartbeat without a lease), lease ms;
--       '' or the item that a suspect run starts next (-1: release the chunks as suspects; K.suspect_paused: the process
--       does other work, so charge nothing to this lease);
--       '' or the packed outcomes of the items before it, which the chunk's next lease continues from;
--       then, for a heartbeat: model name, member of K.heartbeats, ms for which it holds.
-- Returns 1, or 0 if the lease is gone.
local token, lease_ms, item, progress, model, heartbeat, heartbeat_ms = unpack(ARGV)
if model then redis.call('ZADD', K.heartbeats .. model, now_ms() + heartbeat_ms, heartbeat) end
if redis.call('EXISTS', K.leased_chunks .. token) == 0 then return 0 end
redis.call('ZADD', K.leases, now_ms() + lease_ms, token)
if item ~= '' then redis.call('HSET', K.suspect_item, token, item) end
if progress ~= '' then
  local id, chunk = unpack_chunk_ref(redis.call('SRANDMEMBER', K.leased_chunks .. token))
  local job, progress_field = K.job .. id, F.progress .. chunk
  local state, record_bytes, owner, in_share, before =
    unpack(redis.call('HMGET', job, F.state, F.record_bytes, F.owner, F.in_share, progress_field))
  if is_live(state) then
    local added = stored_bytes(progress) - stored_bytes(before or '')
    redis.call('HSET', job, progress_field, progress, F.record_bytes, record_bytes + added)
    add_to_records(in_share and owner, added)
  end
end
return 1
