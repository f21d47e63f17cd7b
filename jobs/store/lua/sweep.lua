#!lua flags=allow-oom
-- One slice of housekeeping; any number of sweepers is safe.
-- ARGV: result ttl ms, least result ttl ms, record bytes to get down to, queue deadline ms, then model names.
-- Returns how many steps it took: call again until it is 0.
local ttl_ms, ttl_min_ms, records_max = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local queue_deadline_ms = tonumber(ARGV[4])
local now = now_ms()
local steps = 0
local uploads_left, records_left, looks_left = 48, 30, 0 -- the rest of this call's limits: they bound its keys

-- Upload bytes of canceled and deleted jobs.
while uploads_left > 0 do
  local head = redis.call('LPOP', K.trash)
  if not head then break end
  local id = string.sub(head, 1, 16)
  local first, chunks = struct.unpack('>I4I4', head, 17)
  local sharer = #head > 24 and string.sub(head, 25)
  local stop = math.min(first + uploads_left, chunks)
  local uploads_freed, spool_freed = 0, 0
  for chunk = first, stop - 1 do
    local upload = K.upload .. id .. struct.pack('>I4', chunk)
    local size = redis.call('STRLEN', upload)
    local in_file = size > 0 and size <= K.pointer_bytes and spooled_size(redis.call('GET', upload))
    if redis.call('UNLINK', upload) == 1 then
      local upload_bytes, spool_bytes = upload_cost(in_file or size, in_file)
      uploads_freed, spool_freed = uploads_freed + upload_bytes, spool_freed + spool_bytes
    end
  end
  add_to_uploads(sharer, -uploads_freed, -spool_freed)
  if stop < chunks then redis.call('LPUSH', K.trash, id .. struct.pack('>I4I4', stop, chunks) .. (sharer or '')) end
  uploads_left = uploads_left - (stop - first)
  steps = steps + 1
end

-- Open jobs past their deadline.
for _, id in ipairs(redis.call('ZRANGE', K.open_deadlines, '-inf', now, 'BYSCORE', 'LIMIT', 0, 4)) do
  local job = K.job .. id
  local state, owner, items, succeeded, failed, chunks, at_deadline = unpack(redis.call('HMGET', job, F.state, F.owner,
    F.items, F.succeeded, F.failed, F.chunks, F.at_deadline))
  if state ~= STATE.open then
    redis.call('ZREM', K.open_deadlines, id)
  elseif at_deadline == 's' and tonumber(items) > 0 then
    seal_job(id, job)
  else
    end_job(id, job, owner, pending_of(items, succeeded, failed), chunks, F.state, STATE.canceled)
  end
  steps = steps + 1
end

-- Records of ended jobs. Over the record budget, and over an owner's share of it, the owner who has most loses his oldest
-- ones first.
local records = tonumber(redis.call('HGET', K.stats, 'records')) or 0
local expired_jobs, expired_of_owner, freed_of = {}, {}, {}

local function free(sharer, record_bytes, in_spool)
  local freed = freed_of[sharer] or { records = 0, spooled = 0 }
  freed_of[sharer] = freed
  freed.records, freed.spooled = freed.records + record_bytes, freed.spooled + in_spool
  records = records - record_bytes
end

-- Takes the first jobs off a list of ended ones that are past their time to live, or past the least one as long as
-- the records exceed their budget. `sharer` and his record bytes: the list is his, and his bytes count once more, so that
-- he keeps at most what is left for others. Returns how many were taken.
local function expire_heads(list, sharer, own)
  local passed = 0
  for _, id in ipairs(redis.call('LRANGE', list, 0, records_left - 1)) do
    local job = K.job .. id
    local ended_ms, owner, record_bytes, key_digest, webhook_url, in_spool, in_share = unpack(redis.call('HMGET', job,
      F.ended_ms, F.owner, F.record_bytes, F.key_digest, F.webhook_url, F.retained_spooled, F.in_share))
    local age = ended_ms and now - ended_ms or math.huge
    if age < 0 then -- the clock was set back: restart the job's time to live, behind the others
      redis.call('HSET', job, F.ended_ms, now)
      redis.call('RPUSH', list, id)
    elseif age < ttl_ms and (age < ttl_min_ms or records + own <= records_max) then
      break
    elseif ended_ms then
      delete_references(id, owner, key_digest, webhook_url)
      expired_jobs[#expired_jobs + 1] = job
      expired_of_owner[owner] = expired_of_owner[owner] or {}
      table.insert(expired_of_owner[owner], id)
      free(in_share and owner, record_bytes, in_spool or 0)
      if sharer then own = own - record_bytes end
    else
      free(sharer, K.ended_id_bytes, 0)
      if sharer then own = own - K.ended_id_bytes end
    end
    passed = passed + 1
  end
  if passed > 0 then redis.call('LPOP', list, passed) end
  steps, records_left = steps + passed, records_left - passed
  return passed
end

local function records_of(owner)
  return (tonumber(redis.call('ZSCORE', K.owners, owner)) or 0) - (freed_of[owner] and freed_of[owner].records or 0)
end

-- Of one owner's list; then notes when to look at it again.
local function expire_heads_of(owner, own)
  local list = K.ended_of_owner .. owner
  local passed = expire_heads(list, owner, own)
  local first = redis.call('LINDEX', list, 0)
  if first then
    redis.call('ZADD', K.oldest_ended, redis.call('HGET', K.job .. first, F.ended_ms) or 0, owner)
  else
    redis.call('ZREM', K.oldest_ended, owner)
  end
  return passed
end

local function expire_of_owners(first_ms, last_ms)
  for _, owner in ipairs(redis.call('ZRANGE', K.oldest_ended, first_ms, last_ms, 'BYSCORE', 'LIMIT', 0, 4)) do
    if records_left > 0 then expire_heads_of(owner, -math.huge) end -- only what is past its time to live
  end
end

expire_of_owners('-inf', now - ttl_ms)
expire_of_owners('(' .. now, '+inf') -- the clock was set back
local evicted = 0
for _, owner in ipairs(redis.call('ZREVRANGE', K.owners, 0, 3)) do
  local own = records_of(owner)
  if evicted > 0 or records_left <= 0 or records + own <= records_max then break end
  evicted = expire_heads_of(owner, own)
end
if evicted == 0 and records_left > 0 then expire_heads(K.ended, false, 0) end
if #expired_jobs > 0 then redis.call('UNLINK', unpack(expired_jobs)) end
for owner, ids in pairs(expired_of_owner) do redis.call('ZREM', K.owner_jobs .. owner, unpack(ids)) end
for sharer, freed in pairs(freed_of) do
  add_to_uploads(sharer, 0, -freed.spooled)
  add_to_records(sharer, -freed.records)
end

-- An earlier release that ran beside this one left its changes out of the shares: who has nothing gets them back.
local somebody = redis.call('ZRANDMEMBER', K.owners)
if somebody and redis.call('EXISTS', K.trash) == 0 then
  if tonumber(redis.call('HGET', K.stats, 'pending:' .. somebody) or 0) <= 0 then
    redis.call('HDEL', K.stats, 'uploads:' .. somebody)
  end
  if redis.call('EXISTS', K.owner_jobs .. somebody, K.ended_of_owner .. somebody) == 0 then
    redis.call('ZREM', K.owners, somebody)
    redis.call('HDEL', K.stats, 'spooled:' .. somebody)
  end
end

-- Takes chunks off the head of a list whose jobs have ended or are gone, or of which nothing has ended nor was added for
-- the queue deadline.
local function drop_heads(list)
  while looks_left > 0 do
    local chunk_ref = redis.call('LINDEX', list, 0)
    if not chunk_ref then return end
    looks_left = looks_left - 1
    local id = unpack_chunk_ref(chunk_ref)
    local job = K.job .. id
    local state, accepted_ms, active_ms, items, succeeded, failed, chunks, owner = unpack(redis.call('HMGET', job,
      F.state, F.accepted_ms, F.active_ms, F.items, F.succeeded, F.failed, F.chunks, F.owner))
    if is_live(state) then
      if now - (active_ms or accepted_ms) <= queue_deadline_ms then return end
      local pending = pending_of(items, succeeded, failed)
      state = tonumber(succeeded or 0) > 0 and STATE.completed or STATE.failed
      end_job(id, job, owner, pending, chunks, F.state, state, F.failed, (tonumber(failed) or 0) + pending,
        F.failure_code, 'deadline_exceeded')
    end
    redis.call('LPOP', list)
    steps = steps + 1
  end
end

for at = 5, #ARGV do
  local model = ARGV[at]
  looks_left = 16
  drop_heads(K.suspects .. model)
  for _, lane in ipairs({ K.suspect_lane, LANE.interactive, LANE.bulk }) do
    local lane_name = model .. ':' .. lane
    local rotation = K.rotation .. lane_name
    for _ = 1, math.min(4, redis.call('LLEN', rotation)) do
      local owner = redis.call('LMOVE', rotation, rotation, 'LEFT', 'RIGHT')
      local ready = K.ready .. lane_name .. ':' .. owner
      drop_heads(ready)
      if redis.call('EXISTS', ready) == 0 then redis.call('LREM', rotation, -1, owner) end
    end
  end
  redis.call('ZREMRANGEBYSCORE', K.heartbeats .. model, '-inf', now)
  if has_ready(model) then
    ring_doorbell(model, 1)
  else
    redis.call('DEL', K.wake .. model)
    if model == K.fetch and redis.call('ZCOUNT', K.webhooks_due, '-inf', now) > 0 then ring_doorbell(model, 1) end
  end
end
return steps
