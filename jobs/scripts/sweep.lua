#!lua flags=allow-oom
-- One slice of housekeeping; any number of sweepers is safe.
-- ARGV: result ttl ms, least result ttl ms, record bytes wanted, queue deadline ms, model names.
-- Returns how much was done: call again until it is 0.
local ttl, ttl_min, records_max, deadline = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local now = now_ms()
local done = 0

-- Upload bytes of canceled and deleted jobs.
local head = redis.call('LPOP', K.trash)
if head then
  local id = string.sub(head, 1, 16)
  local from, chunks = struct.unpack('>I4I4', head, 17)
  local last = math.min(from + 64, chunks)
  local freed = 0
  for chunk = from, last - 1 do
    local upload = K.upload .. id .. struct.pack('>I4', chunk)
    local size = redis.call('STRLEN', upload)
    if redis.call('UNLINK', upload) == 1 then freed = freed + size + K.chunk_bytes end
  end
  count('uploads', -freed)
  if last < chunks then redis.call('LPUSH', K.trash, id .. struct.pack('>I4I4', last, chunks)) end
  done = done + 1
end

-- Ended jobs whose time is over, or whose room is needed.
local records = tonumber(redis.call('HGET', K.stats, 'records')) or 0
for _ = 1, 32 do
  local id = redis.call('LINDEX', K.ended, 0)
  if not id then break end
  local job = K.job .. id
  local record = redis.call('HMGET', job, 'e', 'w', 'z')
  if record[1] then
    local age = now - record[1]
    if age < ttl and (age < ttl_min or records <= records_max) then break end
    redis.call('UNLINK', job)
    count('records', -record[3])
    records = records - record[3]
    trim_owned(record[2])
  end
  redis.call('LPOP', K.ended)
  done = done + 1
end

for at = 5, #ARGV do
  local model = ARGV[at]
  -- Jobs that no worker took in time: the oldest chunk of each owner stands at the head of its queue.
  for _, lane in ipairs({ 'i', 'b' }) do
    local name = model .. ':' .. lane
    for _ = 1, math.min(8, redis.call('LLEN', K.ring .. name)) do
      local owner = redis.call('LMOVE', K.ring .. name, K.ring .. name, 'LEFT', 'RIGHT')
      local queue = K.ready .. name .. ':' .. owner
      local entry = redis.call('LINDEX', queue, 0)
      local id, _, _, size = unpack_entry(entry)
      local job = K.job .. id
      local record = redis.call('HMGET', job, 's', 'a', 'n', 'd', 'f', 'c')
      local late = live(record[1]) and now - record[2] > deadline
      if late then
        local succeeded, failed = tonumber(record[4]) or 0, tonumber(record[5]) or 0
        local pending = record[3] - succeeded - failed
        close(id, job, owner, pending, 's', succeeded > 0 and 'c' or 'f', 'f', failed + pending, 'g', 'deadline_exceeded')
        trash(id, record[6])
      end
      if late or not live(record[1]) then
        drop_upload(entry, size)
        redis.call('LPOP', queue)
        if redis.call('EXISTS', queue) == 0 then redis.call('LREM', K.ring .. name, -1, owner) end
        done = done + 1
      end
    end
  end
  redis.call('ZREMRANGEBYSCORE', K.serving .. model, '-inf', now)
  if has_ready(model) then ring(model, 1) end
end
return done
