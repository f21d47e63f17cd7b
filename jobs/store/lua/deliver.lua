#!lua
-- Replaces the URLs of a chunk by the fetched images, and makes the chunk ready for its job's model.
-- ARGV: owner token, chunk reference, upload budget, budget of the spool ('' if the images are in Redis), share of both
--       that bulk jobs may fill, bytes of the packed images, then the key that holds them under a time to live; without
--       that key the script only checks the budget.
-- Returns 'ok', 'queue_full' (of the budget, or of the owner's share), 'upload_lost', or 'lost' if the chunk is not under
-- this lease or its job has ended.
local token, chunk_ref, uploads_max, spool_max = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local bulk_fraction, size, staged = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]
local lease = K.leased_chunks .. token
local id, chunk, items, urls_size = unpack_chunk_ref(chunk_ref)
local job = K.job .. id
local state, owner, model, lane, in_share =
  unpack(redis.call('HMGET', job, F.state, F.owner, F.model, F.lane, F.in_share))
local sharer = in_share and owner
local upload_bytes, spool_bytes = upload_cost(size, spool_max ~= '')
local more_bytes = upload_bytes - upload_cost(urls_size, false)
if lane == LANE.bulk then
  uploads_max = uploads_max * bulk_fraction
  if spool_bytes > 0 then spool_max = spool_max * bulk_fraction end
end

local function refuse(reason)
  if staged then redis.call('UNLINK', staged) end
  return reason
end

if redis.call('SISMEMBER', lease, chunk_ref) == 0 then return refuse('lost') end
if is_live(state) then
  -- The budget does not count staged bytes: assume that every outbound process stages as many right now.
  local writers = math.max(1, redis.call('ZCARD', K.heartbeats .. K.fetch))
  local uploads, spooled, own_uploads, own_spooled = unpack(redis.call('HMGET', K.stats, 'uploads', 'spooled',
    'uploads:' .. owner, 'spooled:' .. owner))
  uploads, spooled = tonumber(uploads) or 0, tonumber(spooled) or 0
  local is_over = uploads + upload_bytes * (writers - 1) + more_bytes > uploads_max
    or spool_bytes > 0 and spooled + spool_bytes * writers > tonumber(spool_max)
  if sharer and not is_over then
    is_over = not is_in_share(tonumber(own_uploads) or 0, more_bytes, uploads_max - uploads)
      or spool_bytes > 0 and not is_in_share(tonumber(own_spooled) or 0, spool_bytes, spool_max - spooled)
  end
  -- If no image waits for the model, nothing will drain: accept, or URLs that fill the budget would block it for ever.
  if is_over and has_ready(model) then return refuse('queue_full') end
  if not staged then return 'ok' end
  if redis.call('EXISTS', staged) == 0 then return 'upload_lost' end
end
redis.call('SREM', lease, chunk_ref)
drop_lease_if_empty(token)
if not is_live(state) then return refuse('lost') end
local upload = K.upload .. string.sub(chunk_ref, 1, 20)
redis.call('RENAME', staged, upload)
redis.call('PERSIST', upload)
add_to_uploads(sharer, more_bytes, spool_bytes)
local counts_field = F.failure_counts .. chunk
local counts_bytes = stored_bytes(redis.call('HGET', job, counts_field) or '')
if counts_bytes > 0 then -- fetch failures must not count against classification
  redis.call('HDEL', job, counts_field)
  redis.call('HINCRBY', job, F.record_bytes, -counts_bytes)
  add_to_records(sharer, -counts_bytes)
end
make_chunk_ready(model, lane, owner, pack_chunk_ref(id, chunk, items + (spool_bytes > 0 and K.spooled or 0), size))
return 'ok'
