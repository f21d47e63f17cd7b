#!lua
-- Accepts jobs, each on its own, or refuses one and leaves nothing of it. Upload bytes are already written under a time
-- to live; a job that is open has none yet, its chunks come by part.lua.
-- ARGV: record budget, pending items allowed an owner; then for each job 14 values: id, owner, model, lane, top_k,
--       deadline (Redis ms), upload budget; then, '' for none: digest of the Idempotency-Key, fingerprint of the content,
--       webhook, the job that is retried; then items, upload bytes, names ('' where none has one);
--       for an open job: 0, ms until its deadline, what happens then ('s' seals it, 'x' cancels it).
-- Returns for each job {'ok', accepted ms}, {'earlier', id, fingerprint} where the key made a job before, or
-- {refusal, bytes over}. What jobs have in common is read once and written once.
local now = now_ms()
local books = open_books(ARGV[1], ARGV[2])
local queues, owned, bells = {}, {}, {}

local function enqueue(id, owner, model, lane, top_k, deadline, uploads_max, key, fingerprint, hook, retry_of, items,
                       size, names)
  local job, upload, open = K.job .. id, K.upload .. id .. struct.pack('>I4', 0), items == '0'
  local keyed = K.keyed .. owner .. ':' .. key

  local function refuse(...)
    if not open then redis.call('UNLINK', upload) end
    return { ... }
  end

  if redis.call('EXISTS', job) == 1 then return { 'exists' } end
  if now > tonumber(deadline) then return refuse('late') end
  if not open and redis.call('PERSIST', upload) == 0 then return refuse('upload_lost') end
  if key ~= '' then
    local first = redis.call('GET', keyed)
    local record = first and redis.call('HMGET', K.job .. first, 's', 'v') or {}
    if record[2] then return refuse('earlier', first, record[2]) end
    if live(record[1]) then return refuse('in_progress', first) end
  end
  local waiting = open and 0 or size + K.chunk_bytes
  local records = K.job_bytes + stored(hook) + stored(open and '' or names) + (key ~= '' and K.keyed_bytes or 0)
  local refusal, number = admit(books, owner, 1, tonumber(items), waiting, records, uploads_max)
  if refusal then return refuse(refusal, number) end

  local fields = { 's', open and 'o' or 'q', 'w', owner, 'm', model, 'l', lane, 'k', top_k, 'a', now, 'n', items,
    'c', open and 0 or 1, 'z', records }
  local function put(field, value)
    if value ~= '' then
      fields[#fields + 1] = field
      fields[#fields + 1] = value
    end
  end
  put('v', fingerprint)
  put('h', hook)
  put('o', retry_of)
  if open then
    put('q', names)
    redis.call('ZADD', K.open, now + size, id)
  else
    put('i0', names)
    local name = model .. ':' .. lane
    local queue = queues[name .. ':' .. owner] or { name = name, owner = owner, entries = {} }
    queues[name .. ':' .. owner] = queue
    queue.entries[#queue.entries + 1] = id .. struct.pack('>I4I2I4', 0, items, size)
    bells[model] = (bells[model] or 0) + 1
  end
  if key ~= '' then
    put('y', key)
    redis.call('SET', keyed, id)
  end
  redis.call('HSET', job, unpack(fields))
  local numbered = owned[owner] or {}
  owned[owner] = numbered
  numbered[#numbered + 1] = number
  numbered[#numbered + 1] = id
  return { 'ok', now }
end

local verdicts = {}
for at = 3, #ARGV, 14 do verdicts[#verdicts + 1] = enqueue(unpack(ARGV, at, at + 13)) end
close_books(books)
for owner, numbered in pairs(owned) do redis.call('ZADD', K.owned .. owner, unpack(numbered)) end
for _, queue in pairs(queues) do make_ready(queue.name, queue.owner, queue.entries) end
for model, most in pairs(bells) do ring(model, doorbells_max(model), most) end
return verdicts
