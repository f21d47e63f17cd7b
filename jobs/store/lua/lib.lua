-- Shared by every script. K holds the names of jobs/store/keys.py.
-- An entry names a ready chunk in 26 bytes: job id (16), chunk number (4), items (2), upload bytes (4), big-endian;
-- the highest bit of items says that the upload holds URLs, to be fetched first.

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
  return string.sub(entry, 1, 16), chunk, items % K.by_reference, size
end

-- Who serves an entry: its job's model, or first of all those who fetch.
local function server_of(entry, model)
  return string.byte(entry, 21) >= 128 and K.fetch or model
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

-- Puts chunks into their owner's queue of a ring ('model:lane'); the owner joins the ring when it had nothing ready.
local function make_ready(name, owner, entries, first)
  if redis.call(first and 'LPUSH' or 'RPUSH', K.ready .. name .. ':' .. owner, unpack(entries)) == #entries then
    redis.call('RPUSH', K.ring .. name, owner)
  end
end

local function has_ready(model)
  return redis.call('EXISTS', K.ring .. model .. ':i', K.ring .. model .. ':b', K.suspects .. model) > 0
end

-- Wakes one child that lingers, or the next one that is about to.
local function wake(model)
  local key = K.wake .. model
  if model ~= K.fetch and redis.call('EXISTS', key) == 0 then redis.call('RPUSH', key, 1) end
end

-- Rings the doorbell, so many times, while fewer than `most` wait. The template comes from a worker: before the first
-- one there is nobody to ring for, and its sweep rings for what waits.
local function ring(model, most, times)
  wake(model)
  local queue = K.queue .. model
  local rings = math.min(most - redis.call('LLEN', queue), times or 1)
  local bell = rings > 0 and redis.call('GET', K.bell .. model)
  if not bell then return 0 end
  for _ = 1, rings do
    redis.call('LPUSH', queue, (string.gsub(bell, K.placeholder, model .. '-' .. redis.call('INCR', K.bells))))
  end
  return rings
end

-- Those who serve a model show it by its name, whichever versions they serve.
local function doorbells_max(model)
  return math.max(2, redis.call('ZCARD', K.serving .. (string.match(model, '^([^@]+)@') or model)))
end

-- What is counted, for scripts that take jobs in: read here, added to by `admit`, written by `close_books`.
local function open_books(records_max, pending_max)
  local found = redis.call('HMGET', K.stats, 'uploads', 'records', 'accepted')
  for at = 1, 3 do found[at] = tonumber(found[at] or 0) end
  return { uploads = found[1], records = found[2], accepted = found[3], pending = {},
    records_max = tonumber(records_max), pending_max = tonumber(pending_max) }
end

-- Counts what a submit brings, or returns why it is refused and by how much it is over.
local function admit(books, owner, jobs, items, waiting, records, uploads_max)
  local pending = books.pending[owner] or tonumber(redis.call('HGET', K.stats, 'pending:' .. owner) or 0)
  if pending + items > books.pending_max then return 'quota_exceeded', 0 end
  local over = books.uploads + waiting - uploads_max
  if over > 0 then return 'queue_full', over end
  if books.records + records > books.records_max then return 'queue_full', 0 end
  books.uploads, books.records = books.uploads + waiting, books.records + records
  books.accepted, books.pending[owner] = books.accepted + jobs, pending + items
  return nil, books.accepted
end

local function close_books(books)
  local fields = { 'uploads', books.uploads, 'records', books.records, 'accepted', books.accepted }
  for owner, pending in pairs(books.pending) do
    fields[#fields + 1] = 'pending:' .. owner
    fields[#fields + 1] = pending
  end
  if #fields > 6 then redis.call('HSET', K.stats, unpack(fields)) end
end

-- What `unpack_notices` in jobs/store/job_hash.py reads: a job has ended, and, where it is one image, with what.
local function notice(id, told)
  return id .. struct.pack('>I2', #told) .. told
end

-- Whoever waits for the end of a job is told, and its webhook is due.
local function note_end(id, hook)
  redis.call('RPUSH', K.ended, id)
  redis.call('PUBLISH', K.channel, notice(id, ''))
  if hook then redis.call('ZADD', K.hooks, now_ms(), id) end
end

-- Ends the intake of an open job, which may have nothing left to do.
local function seal(id, job)
  local record = redis.call('HMGET', job, 'n', 'd', 'f', 't', 'h')
  local succeeded, failed = tonumber(record[2]) or 0, tonumber(record[3]) or 0
  redis.call('ZREM', K.open, id)
  if succeeded + failed == tonumber(record[1]) then
    redis.call('HSET', job, 's', succeeded > 0 and 'c' or 'f', 'e', now_ms())
    note_end(id, record[5])
  else
    redis.call('HSET', job, 's', record[4] and 'r' or 'q')
  end
end

-- Makes a chunk ready for whoever serves it, and rings.
local function call_for(model, lane, owner, entry, first)
  local server = server_of(entry, model)
  make_ready(server .. ':' .. lane, owner, { entry }, first)
  ring(server, doorbells_max(server))
end

-- Ends a live job whose items are not all done: what is pending takes the state that the job's fields imply.
-- Upload bytes of chunks that no finish will drop are freed by the sweep, in slices.
local function close(id, job, owner, pending, chunks, ...)
  redis.call('HSET', job, 'e', now_ms(), ...)
  redis.call('ZREM', K.open, id)
  redis.call('RPUSH', K.trash, id .. struct.pack('>I4I4', 0, chunks))
  count('transitions', pending)
  count('pending:' .. owner, -pending)
  note_end(id, redis.call('HGET', job, 'h'))
end

-- Drops what leads to a job by its Idempotency-Key and its webhook.
local function forget_paths(id, owner, key, hook)
  local keyed = key and K.keyed .. owner .. ':' .. key
  if keyed and redis.call('GET', keyed) == id then redis.call('UNLINK', keyed) end
  if hook then redis.call('ZREM', K.hooks, id) end
end

-- Drops a job's record and what leads to it.
local function forget(id, owner)
  forget_paths(id, owner, unpack(redis.call('HMGET', K.job .. id, 'y', 'h')))
  redis.call('UNLINK', K.job .. id)
  redis.call('ZREM', K.owned .. owner, id)
end
