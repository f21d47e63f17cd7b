#!lua flags=allow-oom
-- One slice of housekeeping; any number of sweepers is safe.
-- ARGV: result ttl ms, least result ttl ms, record bytes wanted, queue deadline ms, model names.
-- Returns how much was done: call again until it is 0.
local ttl, ttl_min, records_max, deadline = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local now = now_ms()
local done = 0
local uploads, looks = 48 -- what is left of this call's share, which bounds the keys that it touches

-- Upload bytes of canceled and deleted jobs.
while uploads > 0 do
  local head = redis.call('LPOP', K.trash)
  if not head then break end
  local id = string.sub(head, 1, 16)
  local from, chunks = struct.unpack('>I4I4', head, 17)
  local last = math.min(from + uploads, chunks)
  for chunk = from, last - 1 do
    local upload = K.upload .. id .. struct.pack('>I4', chunk)
    local size = redis.call('STRLEN', upload)
    if redis.call('UNLINK', upload) == 1 then count('uploads', -(size + K.chunk_bytes)) end
  end
  if last < chunks then redis.call('LPUSH', K.trash, id .. struct.pack('>I4I4', last, chunks)) end
  uploads = uploads - (last - from)
  done = done + 1
end

-- Open jobs that nobody has added to in time.
for _, id in ipairs(redis.call('ZRANGE', K.open, '-inf', now, 'BYSCORE', 'LIMIT', 0, 4)) do
  local job = K.job .. id
  local record = redis.call('HMGET', job, 's', 'w', 'n', 'd', 'f', 'c', 'q')
  if record[1] ~= 'o' then
    redis.call('ZREM', K.open, id)
  elseif record[7] == 's' and tonumber(record[3]) > 0 then
    seal(id, job)
  else
    close(id, job, record[2], record[3] - (tonumber(record[4]) or 0) - (tonumber(record[5]) or 0), record[6], 's', 'x')
  end
  done = done + 1
end

-- Ended jobs whose time is over, or whose room is needed.
local records = tonumber(redis.call('HGET', K.stats, 'records')) or 0
local gone, freed, owned = {}, 0, {}
local heads = redis.call('LRANGE', K.ended, 0, 29)
local passed = 0
for _, id in ipairs(heads) do
  local job = K.job .. id
  local record = redis.call('HMGET', job, 'e', 'w', 'z', 'y', 'h')
  local age = record[1] and now - record[1] or math.huge
  if age < 0 then -- the clock was set back: its time starts anew, and it stands in nobody's way
    redis.call('HSET', job, 'e', now)
    redis.call('RPUSH', K.ended, id)
  elseif age < ttl and (age < ttl_min or records - freed <= records_max) then
    break
  else
    freed = freed + (record[3] or K.ended_bytes)
    if record[1] then
      forget_paths(id, record[2], record[4], record[5])
      gone[#gone + 1] = job
      owned[record[2]] = owned[record[2]] or {}
      table.insert(owned[record[2]], id)
    end
  end
  passed = passed + 1
end
if passed > 0 then redis.call('LPOP', K.ended, passed) end
if #gone > 0 then redis.call('UNLINK', unpack(gone)) end
for owner, ids in pairs(owned) do redis.call('ZREM', K.owned .. owner, unpack(ids)) end
count('records', -freed)
done = done + passed

-- Takes chunks off the head of a queue while their job has ended or is gone, or no worker took it in time.
local function drop_heads(queue)
  while looks > 0 do
    local entry = redis.call('LINDEX', queue, 0)
    if not entry then return end
    looks = looks - 1
    local id, _, _, size = unpack_entry(entry)
    local job = K.job .. id
    local record = redis.call('HMGET', job, 's', 'a', 'n', 'd', 'f', 'c', 'w')
    if live(record[1]) then
      if now - record[2] <= deadline then return end
      local succeeded, failed = tonumber(record[4]) or 0, tonumber(record[5]) or 0
      local pending = record[3] - succeeded - failed
      close(id, job, record[7], pending, record[6],
        's', succeeded > 0 and 'c' or 'f', 'f', failed + pending, 'g', 'deadline_exceeded')
    end
    drop_upload(entry, size)
    redis.call('LPOP', queue)
    done = done + 1
  end
end

for at = 5, #ARGV do
  local model = ARGV[at]
  looks = 16
  drop_heads(K.suspects .. model)
  for _, lane in ipairs({ 'i', 'b' }) do
    local name = model .. ':' .. lane
    for _ = 1, math.min(4, redis.call('LLEN', K.ring .. name)) do
      local owner = redis.call('LMOVE', K.ring .. name, K.ring .. name, 'LEFT', 'RIGHT')
      local queue = K.ready .. name .. ':' .. owner
      drop_heads(queue)
      if redis.call('EXISTS', queue) == 0 then redis.call('LREM', K.ring .. name, -1, owner) end
    end
  end
  redis.call('ZREMRANGEBYSCORE', K.serving .. model, '-inf', now)
  if has_ready(model) then ring(model, 1) else redis.call('DEL', K.wake .. model) end
end
return done
