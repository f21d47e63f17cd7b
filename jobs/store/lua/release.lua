#!lua flags=allow-oom
-- Ends a lease and makes its chunks ready again.
-- ARGV: owner token, the lease's end that the caller saw ('' for any), reason:
--   'returned'      the worker gives the chunks back unprocessed: counts no failure
--   'worker_lost'   the lease was not renewed in time: counts a lost lease
--   an item's code  the process died: counts a crash of the item that a suspect run had reached, else of the chunk
-- Returns how many chunks were made ready.
local token, seen_end, reason = ARGV[1], ARGV[2], ARGV[3]
local lease_end = redis.call('ZSCORE', K.leases, token)
if not lease_end or (seen_end ~= '' and tonumber(lease_end) ~= tonumber(seen_end)) then return 0 end
local chunk_refs = redis.call('SMEMBERS', K.leased_chunks .. token)
local reached = tonumber(redis.call('HGET', K.suspect_item, token))
redis.call('DEL', K.leased_chunks .. token)
redis.call('ZREM', K.leases, token)
redis.call('HDEL', K.suspect_item, token)
local crashed = reason ~= 'returned' and reason ~= 'worker_lost'

-- Returns the chunk's failure counts (JSON) with this failure; `packed` are the counts before it, or false.
local function add_failure(packed)
  local counts = packed and cjson.decode(packed) or { losses = 0, crashes = 0, items = {} }
  if reason == 'worker_lost' then
    counts.losses = counts.losses + 1
  elseif reached and reached >= 0 then
    local item = tostring(reached)
    counts.items[item] = (counts.items[item] or 0) + 1
    counts.code = reason
  else
    counts.crashes = counts.crashes + 1
    counts.code = reason
  end
  return cjson.encode(counts)
end

local readied = 0
for _, chunk_ref in ipairs(chunk_refs) do
  local id, chunk, _, size = unpack_chunk_ref(chunk_ref)
  local job, counts_field = K.job .. id, F.failure_counts .. chunk
  local state, owner, model, lane, counts =
    unpack(redis.call('HMGET', job, F.state, F.owner, F.model, F.lane, counts_field))
  if not is_live(state) then
    drop_upload(chunk_ref, size)
  else
    if reason ~= 'returned' then redis.call('HSET', job, counts_field, add_failure(counts)) end
    if reached or crashed then
      local consumer = consumer_of(chunk_ref, model)
      redis.call('RPUSH', K.suspects .. consumer, chunk_ref)
      ring_doorbell(consumer, doorbells_max(consumer))
    else
      make_chunk_ready(model, lane, owner, chunk_ref, true)
    end
    readied = readied + 1
  end
end
return readied
