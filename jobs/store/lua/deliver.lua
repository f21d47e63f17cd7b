#!lua
-- Replaces the URLs of a chunk by the fetched images, and makes the chunk ready for its job's model.
-- ARGV: owner token, chunk reference, upload budget, bytes of the packed images, then the key that holds them under a
--       time to live; without that key the script only checks the budget.
-- Returns 'ok', 'queue_full', 'upload_lost', or 'lost' if the chunk is not under this lease or its job has ended.
local token, chunk_ref, uploads_max, size, staged = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local lease = K.leased_chunks .. token
local id, chunk, items, urls_size = unpack_chunk_ref(chunk_ref)
local job = K.job .. id
local state, owner, model, lane = unpack(redis.call('HMGET', job, F.state, F.owner, F.model, F.lane))

local function refuse(reason)
  if staged then redis.call('UNLINK', staged) end
  return reason
end

if redis.call('SISMEMBER', lease, chunk_ref) == 0 then return refuse('lost') end
if is_live(state) then
  -- The budget does not count staged bytes: assume that every outbound process stages as many right now.
  local writers = math.max(1, redis.call('ZCARD', K.heartbeats .. K.fetch))
  local uploads = (tonumber(redis.call('HGET', K.stats, 'uploads')) or 0) + size * writers - urls_size
  -- If no image waits for the model, nothing will drain: accept, or URLs that fill the budget would block it for ever.
  if uploads > uploads_max and has_ready(model) then return refuse('queue_full') end
  if not staged then return 'ok' end
  if redis.call('EXISTS', staged) == 0 then return 'upload_lost' end
end
redis.call('SREM', lease, chunk_ref)
drop_lease_if_empty(token)
if not is_live(state) then
  drop_upload(chunk_ref, urls_size)
  return refuse('lost')
end
local upload = K.upload .. string.sub(chunk_ref, 1, 20)
redis.call('RENAME', staged, upload)
redis.call('PERSIST', upload)
add_to_stat('uploads', size - urls_size)
redis.call('HDEL', job, F.failure_counts .. chunk) -- fetch failures must not count against classification
make_chunk_ready(model, lane, owner, pack_chunk_ref(id, chunk, items, size))
return 'ok'
