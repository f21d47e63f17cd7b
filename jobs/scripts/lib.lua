-- Shared by every script. K holds the names of jobs/keys.py.
-- An entry names a ready chunk in 26 bytes: job id (16), chunk number (4), items (2), upload bytes (4), big-endian.

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function live(state)
  return state == 'o' or state == 'q' or state == 'r'
end

local function count(field, by)
  if by ~= 0 then redis.call('HINCRBY', K.stats, field, by) end
end

local function unpack_entry(entry)
  local chunk, items, size = struct.unpack('>I4I2I4', entry, 17)
  return string.sub(entry, 1, 16), chunk, items, size
end

-- What a string costs in a record: allocators round up, by a fifth at most of what they give.
local function stored(text)
  return math.ceil(#text * 1.2)
end

-- Frees a chunk's upload bytes, once.
local function drop_upload(entry, size)
  if redis.call('UNLINK', K.upload .. string.sub(entry, 1, 20)) == 1 then
    count('uploads', -(size + K.chunk_bytes))
  end
end

-- Puts a chunk into its owner's queue; the owner joins the ring when it had nothing ready.
local function make_ready(model, lane, owner, entry, first)
  local name = model .. ':' .. lane
  if redis.call(first and 'LPUSH' or 'RPUSH', K.ready .. name .. ':' .. owner, entry) == 1 then
    redis.call('RPUSH', K.ring .. name, owner)
  end
end

local function has_ready(model)
  return redis.call('EXISTS', K.ring .. model .. ':i', K.ring .. model .. ':b', K.suspects .. model) > 0
end

-- Rings the doorbell while fewer than `most` wait. The template comes from a worker: before the first one
-- there is nobody to ring for, and its sweep rings for what waits.
local function ring(model, most)
  local queue = K.queue .. model
  if redis.call('LLEN', queue) >= most then return 0 end
  local bell = redis.call('GET', K.bell .. model)
  if not bell then return 0 end
  redis.call('LPUSH', queue, (string.gsub(bell, K.placeholder, model .. '-' .. redis.call('INCR', K.bells))))
  return 1
end

local function doorbells_max(model)
  return math.max(2, redis.call('ZCARD', K.serving .. model))
end

-- Ends a live job whose items are not all done: what is pending takes the state that the job's fields imply.
-- Upload bytes of chunks that no finish will drop are freed by the sweep, in slices.
local function close(id, job, owner, pending, chunks, ...)
  redis.call('HSET', job, 'e', now_ms(), ...)
  redis.call('RPUSH', K.ended, id)
  redis.call('RPUSH', K.trash, id .. struct.pack('>I4I4', 0, chunks))
  count('transitions', pending)
  count('pending:' .. owner, -pending)
  redis.call('PUBLISH', K.channel, id)
end

-- Drops a job's record and its place among its owner's jobs.
local function forget(id, owner)
  redis.call('UNLINK', K.job .. id)
  redis.call('ZREM', K.owned .. owner, id)
end
