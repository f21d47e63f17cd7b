#!lua flags=allow-oom
-- Takes ready chunks of live jobs under one lease.
-- ARGV: model, owner token, lease ms, items wanted of the interactive lane, of the bulk lane, bytes allowed, turn.
-- Every second turn takes one suspect chunk alone, every eighth looks at the bulk lane first; one lane a claim,
-- owner after owner, each getting its share of what is wanted. Where no bulk is wanted, suspects are not, either.
-- Returns {'suspect' | 'i' | 'b' (the lane), 1 if work may be left else 0, then for each chunk: entry, top_k, charges,
-- progress}, where progress is what an earlier run has done of the chunk.
local model, token = ARGV[1], ARGV[2]
local lease_ms, bytes_max, turn = tonumber(ARGV[3]), tonumber(ARGV[6]), tonumber(ARGV[7])
local wanted = { i = tonumber(ARGV[4]), b = tonumber(ARGV[5]) }
local reply, held = { 'i', 0 }, {}
local now = now_ms()
local pops = 120 -- bounds the keys that one call touches

-- Whether the chunk was taken: chunks of jobs that ended or are gone lose their bytes here.
local function take(entry)
  local id, chunk, _, size = unpack_entry(entry)
  local job = K.job .. id
  local record = redis.call('HMGET', job, 's', 'k', 'x' .. chunk, 'p' .. chunk, 't')
  if not live(record[1]) then
    drop_upload(entry, size)
    return false
  end
  if record[1] == 'q' then
    redis.call('HSET', job, 's', 'r', 't', now)
  elseif not record[5] then
    redis.call('HSET', job, 't', now)
  end
  held[#held + 1] = entry
  reply[#reply + 1] = entry
  reply[#reply + 1] = record[2]
  reply[#reply + 1] = record[3] or ''
  reply[#reply + 1] = record[4] or ''
  return true
end

local function take_suspect()
  while pops > 0 do
    local entry = redis.call('LPOP', K.suspects .. model)
    if not entry then return end
    pops = pops - 1
    if take(entry) then
      reply[1] = 'suspect'
      redis.call('HSET', K.suspect_at, token, -1)
      return
    end
  end
end

-- One round of the ring: each owner gets its share of what is still wanted. Returns the items and bytes held.
local function take_round(name, items_max, items, bytes)
  for owners = redis.call('LLEN', K.ring .. name), 1, -1 do
    if items >= items_max or pops <= 0 then break end
    local owner = redis.call('LPOP', K.ring .. name)
    local queue = K.ready .. name .. ':' .. owner
    local before, share, fits = items, items + math.ceil((items_max - items) / owners), true
    local chunks = 1 -- to pop in one go: once the first is known, as many as fit if all are like it
    while items < share and pops > 0 do
      local popped = redis.call('LPOP', queue, math.min(chunks, pops))
      if not popped then break end
      for at, entry in ipairs(popped) do
        local _, _, more, size = unpack_entry(entry)
        if items >= share or #held > 0 and (items + more > items_max or bytes + size > bytes_max) then
          for back = #popped, at, -1 do redis.call('LPUSH', queue, popped[back]) end
          if items < share then fits, pops = false, 0 end
          break
        end
        pops = pops - 1
        if take(entry) then items, bytes = items + more, bytes + size end
        chunks = math.max(1, math.floor((share - items) / more))
      end
    end
    if redis.call('EXISTS', queue) == 1 then
      -- For whom there was no room at all, the next claim has it first.
      redis.call((fits or items > before) and 'RPUSH' or 'LPUSH', K.ring .. name, owner)
    end
  end
  return items, bytes
end

local function take_lane(lane)
  local items_max, items, bytes, before = wanted[lane], 0, 0, -1
  while items > before and items < items_max and pops > 0 do
    before = items
    items, bytes = take_round(model .. ':' .. lane, items_max, items, bytes)
  end
  if items > 0 then reply[1] = lane end
end

if wanted.b > 0 and turn % 2 == 1 then take_suspect() end
if #held == 0 then take_lane(turn % 8 == 6 and 'b' or 'i') end
if #held == 0 then take_lane(turn % 8 == 6 and 'i' or 'b') end
if #held == 0 and wanted.b > 0 and turn % 2 == 0 then take_suspect() end
if #held > 0 then
  redis.call('SADD', K.lease .. token, unpack(held))
  redis.call('ZADD', K.leases, now + lease_ms, token)
end
if has_ready(model) then
  reply[2] = 1
  wake(model)
else
  redis.call('DEL', K.wake .. model) -- who lingers from here on waits for new work
end
return reply
