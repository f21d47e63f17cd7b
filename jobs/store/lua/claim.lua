#!lua flags=allow-oom
-- Takes ready chunks of live jobs under one lease.
-- ARGV: model, owner token, lease ms, items allowed of the interactive lane, how many of them are never left to idle
--       processes, items allowed of the bulk lane, bytes allowed, turn.
-- Every second turn takes one suspect chunk alone; every eighth looks at the bulk lane first. A claim takes one lane,
-- owner after owner, and each owner gets an equal share of the items. If no bulk items are allowed, suspects are not
-- taken either. Nor are they if all but one of the processes that serve the model have one: the last is kept for other
-- work, as a suspect may be slow. If other processes that serve the model are idle, a claim of the interactive lane
-- leaves them their share.
-- Returns {'suspect' or the lane, 1 if work may be left else 0, then for each chunk: chunk reference, top_k, failure
-- counts, progress}; progress are the outcomes of an earlier suspect run.
local model, token, lease_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])
local items_allowed = { [LANE.interactive] = tonumber(ARGV[4]), [LANE.bulk] = tonumber(ARGV[6]) }
local unshared, bytes_max, turn = tonumber(ARGV[5]), tonumber(ARGV[7]), tonumber(ARGV[8])
local reply, leased = { LANE.interactive, 0 }, {}
local now = now_ms()
local pops_left = 120 -- bounds the keys that one call touches
local OWNERS_COUNTED = 16 -- of the interactive lane, when its work is shared: bounds the same

-- Takes a popped chunk under the lease, if its job is live. Returns whether it was taken.
local function take(chunk_ref)
  local id, chunk = unpack_chunk_ref(chunk_ref)
  local job = K.job .. id
  local state, top_k, failure_counts, progress, started = unpack(
    redis.call('HMGET', job, F.state, F.top_k, F.failure_counts .. chunk, F.progress .. chunk, F.started_ms))
  if not is_live(state) then return false end
  if state == STATE.queued then
    redis.call('HSET', job, F.state, STATE.running, F.started_ms, now)
  elseif not started then
    redis.call('HSET', job, F.started_ms, now)
  end
  leased[#leased + 1] = chunk_ref
  reply[#reply + 1] = chunk_ref
  reply[#reply + 1] = top_k
  reply[#reply + 1] = failure_counts or ''
  reply[#reply + 1] = progress or ''
  return true
end

-- Takes one suspect: of those that earlier releases left, or else of the next owner.
local function take_suspect()
  local lane_name = model .. ':' .. K.suspect_lane
  while pops_left > 0 do
    local chunk_ref = redis.call('LPOP', K.suspects .. model)
    if not chunk_ref then
      local owner = redis.call('LPOP', K.rotation .. lane_name)
      if not owner then return end
      local ready = K.ready .. lane_name .. ':' .. owner
      chunk_ref = redis.call('LPOP', ready)
      if redis.call('EXISTS', ready) == 1 then redis.call('RPUSH', K.rotation .. lane_name, owner) end
    end
    pops_left = pops_left - 1
    if take(chunk_ref) then
      reply[1] = 'suspect'
      redis.call('HSET', K.suspect_item, token, -1)
      return
    end
  end
end

-- One round of the rotation: each owner gets an equal share of the items that are still allowed. Returns the items and
-- bytes under the lease.
local function take_round(lane_name, items_max, items, bytes)
  local rotation = K.rotation .. lane_name
  for owners_left = redis.call('LLEN', rotation), 1, -1 do
    if items >= items_max or pops_left <= 0 then break end
    local owner = redis.call('LPOP', rotation)
    local ready = K.ready .. lane_name .. ':' .. owner
    local before, share, fits = items, items + math.ceil((items_max - items) / owners_left), true
    local batch = 1 -- chunks of one LPOP: after the first chunk, as many as fit if all have as many items
    while items < share and pops_left > 0 do
      local popped = redis.call('LPOP', ready, math.min(batch, pops_left))
      if not popped then break end
      for at, chunk_ref in ipairs(popped) do
        local _, _, chunk_items, size = unpack_chunk_ref(chunk_ref)
        if items >= share or #leased > 0 and (items + chunk_items > items_max or bytes + size > bytes_max) then
          for back = #popped, at, -1 do redis.call('LPUSH', ready, popped[back]) end
          if items < share then fits, pops_left = false, 0 end
          break
        end
        pops_left = pops_left - 1
        if take(chunk_ref) then items, bytes = items + chunk_items, bytes + size end
        batch = math.max(1, math.floor((share - items) / chunk_items))
      end
    end
    if redis.call('EXISTS', ready) == 1 then
      -- An owner whose first chunk did not fit stays at the head: the next claim takes it first.
      redis.call((fits or items > before) and 'RPUSH' or 'LPUSH', rotation, owner)
    end
  end
  return items, bytes
end

-- Whether all but one of the processes that serve the model's name are at suspects of it.
local function has_suspects_enough()
  local name = string.match(model, '^([^@]+)@') or model
  local left = redis.call('ZCOUNT', K.heartbeats .. name, now, '+inf') - 1
  if left < 0 then return false end -- no heartbeats, no count
  left = math.max(1, left)
  for _, running in ipairs(redis.call('HKEYS', K.suspect_item)) do
    local chunk_ref = redis.call('SRANDMEMBER', K.leased_chunks .. running)
    local of = chunk_ref and redis.call('HGET', K.job .. string.sub(chunk_ref, 1, 16), F.model)
    if of and consumer_of(chunk_ref, of) == of and (string.match(of, '^([^@]+)@') or of) == name then left = left - 1 end
    if left <= 0 then return true end
  end
  return false
end

-- This process's share of the chunks that wait in the interactive lane, if others are idle: of at most `items_max`
-- items. A process counts as idle as long as there are fewer leases than processes that serve the model's name; leases
-- of other models make it look busier than it is, and the claim larger.
local function share_of_interactive(items_max)
  if items_max <= unshared then return items_max end
  local name = string.match(model, '^([^@]+)@') or model
  local idle = redis.call('ZCOUNT', K.heartbeats .. name, now, '+inf') - redis.call('ZCARD', K.leases)
  if idle <= 1 then return items_max end
  local lane_name, waiting = model .. ':' .. LANE.interactive, 0
  for _, owner in ipairs(redis.call('LRANGE', K.rotation .. lane_name, 0, OWNERS_COUNTED - 1)) do
    waiting = waiting + redis.call('LLEN', K.ready .. lane_name .. ':' .. owner)
  end
  return math.min(items_max, math.max(unshared, math.ceil(waiting / idle)))
end

local function take_lane(lane)
  local items_max, items, bytes, before = items_allowed[lane], 0, 0, -1
  if lane == LANE.interactive then items_max = share_of_interactive(items_max) end
  while items > before and items < items_max and pops_left > 0 do
    before = items
    items, bytes = take_round(model .. ':' .. lane, items_max, items, bytes)
  end
  if items > 0 then reply[1] = lane end
end

local first_lane, second_lane = LANE.interactive, LANE.bulk
if turn % 8 == 6 then first_lane, second_lane = LANE.bulk, LANE.interactive end
local suspects_wait = has_suspects(model)
local suspects_allowed = suspects_wait and items_allowed[LANE.bulk] > 0 and not has_suspects_enough()

if suspects_allowed and turn % 2 == 1 then take_suspect() end
if #leased == 0 then take_lane(first_lane) end
if #leased == 0 then take_lane(second_lane) end
if #leased == 0 and suspects_allowed and turn % 2 == 0 then take_suspect() end
if #leased > 0 then
  redis.call('SADD', K.leased_chunks .. token, unpack(leased))
  redis.call('ZADD', K.leases, now + lease_ms, token)
end
local interactive, bulk = K.rotation .. model .. ':' .. LANE.interactive, K.rotation .. model .. ':' .. LANE.bulk
if redis.call('EXISTS', interactive, bulk) > 0 or has_suspects(model) and not has_suspects_enough() then
  reply[2] = 1
  wake_lingering(model)
else
  redis.call('DEL', K.wake .. model) -- a process that lingers from now on waits for new work
end
return reply
