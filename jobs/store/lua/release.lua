#!lua flags=allow-oom
-- Ends a lease and makes its chunks ready again.
-- ARGV: owner token, the lease's end that the caller saw ('' for any), reason:
--   'returned'      the worker gives the chunks back unprocessed: counts no failure
--   'worker_lost'   the lease was not renewed in time: counts a lost lease
--   an item's code  the process died: counts a crash
-- A crash or loss counts against the item that a suspect run had reached, else against the chunk; not at all if the
-- process did other work at that time. A chunk runs as a suspect from its first crash or its second loss on.
-- Returns how many chunks were made ready.
local token, seen_end, reason = ARGV[1], ARGV[2], ARGV[3]
local lease_end = redis.call('ZSCORE', K.leases, token)
if not lease_end or (seen_end ~= '' and tonumber(lease_end) ~= tonumber(seen_end)) then return 0 end
local chunk_refs = redis.call('SMEMBERS', K.leased_chunks .. token)
local reached = tonumber(redis.call('HGET', K.suspect_item, token))
redis.call('DEL', K.leased_chunks .. token)
redis.call('ZREM', K.leases, token)
redis.call('HDEL', K.suspect_item, token)
if reached == K.suspect_paused then reason = 'returned' end
local crashed = reason ~= 'returned' and reason ~= 'worker_lost'
local at_item = reached and reached >= 0 and tostring(reached) or nil

-- A chunk's failure counts; what another release wrote and this one cannot read counts nothing.
local function read_counts(packed)
  local ok, counts = pcall(cjson.decode, packed or '{}')
  if not ok or type(counts) ~= 'table' then counts = {} end
  counts.losses, counts.crashes = tonumber(counts.losses) or 0, tonumber(counts.crashes) or 0
  if type(counts.items) ~= 'table' then counts.items = {} end
  return counts
end

-- Adds this failure to a chunk's failure counts.
local function add_failure(counts)
  if crashed then counts.code = reason end
  if at_item then
    local name = crashed and at_item or K.item_lost .. at_item
    counts.items[name] = (counts.items[name] or 0) + 1
  elseif crashed then
    counts.crashes = counts.crashes + 1
  else
    counts.losses = counts.losses + 1
  end
end

local readied = 0
for _, chunk_ref in ipairs(chunk_refs) do
  local id, chunk = unpack_chunk_ref(chunk_ref)
  local job, counts_field = K.job .. id, F.failure_counts .. chunk
  local state, owner, model, lane, packed_counts, record_bytes, in_share =
    unpack(redis.call('HMGET', job, F.state, F.owner, F.model, F.lane, counts_field, F.record_bytes, F.in_share))
  if is_live(state) then
    local counts = read_counts(packed_counts)
    if reason ~= 'returned' then
      add_failure(counts)
      local packed = cjson.encode(counts)
      local added = stored_bytes(packed) - stored_bytes(packed_counts or '')
      redis.call('HSET', job, counts_field, packed, F.record_bytes, record_bytes + added)
      add_to_records(in_share and owner, added)
    end
    local suspect = reached or crashed or counts.losses >= 2
    make_chunk_ready(model, suspect and K.suspect_lane or lane, owner, chunk_ref, not suspect)
    readied = readied + 1
  end
end
return readied
