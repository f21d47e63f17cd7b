-- Shared by the scripts that accept items, behind lib.lua.

-- The counters of scripts that accept items: read here, added to by `admit`, written by `write_counters`.
local function read_counters(records_max, now)
  local uploads, spooled, records, accepted =
    unpack(redis.call('HMGET', K.stats, 'uploads', 'spooled', 'records', 'accepted'))
  return { uploads = tonumber(uploads or 0), spooled = tonumber(spooled or 0), spooled_before = tonumber(spooled or 0),
    records = tonumber(records or 0), accepted = tonumber(accepted or 0), owners = {}, used = {},
    records_max = tonumber(records_max), day = math.floor(now / K.day_ms) }
end

-- What an owner has, of `counters`: items to end, and bytes of each budget, which are nil without shares.
local function read_owner(counters, owner)
  local has = counters.owners[owner]
  if not has then
    if owner == K.owner_of_all then
      has = { pending = tonumber(redis.call('HGET', K.stats, 'pending:' .. owner) or 0) }
    else
      local pending, uploads, spooled =
        unpack(redis.call('HMGET', K.stats, 'pending:' .. owner, 'uploads:' .. owner, 'spooled:' .. owner))
      has = { pending = tonumber(pending or 0), uploads = tonumber(uploads or 0), spooled = tonumber(spooled or 0),
        records = tonumber(redis.call('ZSCORE', K.owners, owner) or 0) }
    end
    counters.owners[owner] = has
  end
  return has
end

-- Why an owner may not have so many more bytes of records: a refusal, or nil.
local function refusal_of_records(counters, has, bytes, sharer)
  local free = counters.records_max - counters.records
  if bytes > free then return 'queue_full' end
  if sharer and not is_in_share(has.records, bytes, free) then return 'share_full' end
end

-- Adds one submit to the counters; its upload is a file if `spool_max` is not ''. Returns nil and the number of
-- accepted jobs, or a refusal and a number: the bytes over budget or share, or of a daily quota the items used. Third,
-- the items used of the daily quota, nil if there is none.
local function admit(counters, owner, sharer, jobs, items, size, record_bytes, uploads_max, spool_max, pending_max,
                     key_id, items_a_day)
  local has = read_owner(counters, owner)
  if has.pending + items > tonumber(pending_max) then return 'quota_exceeded', 0 end
  local used = nil
  if key_id ~= '' and items > 0 then
    used = counters.used[key_id] or tonumber(redis.call('GET', K.items_of_day .. key_id .. ':' .. counters.day) or 0)
    if used + items > tonumber(items_a_day) then return 'daily_quota_exceeded', used end
    used = used + items
  end
  local upload_bytes, spool_bytes = 0, 0
  if size then upload_bytes, spool_bytes = upload_cost(size, spool_max ~= '') end
  local over = counters.uploads + upload_bytes - uploads_max
  if spool_bytes > 0 then over = math.max(over, counters.spooled + spool_bytes - spool_max) end
  if over > 0 then return 'queue_full', over end
  if sharer and not is_in_share(has.uploads, upload_bytes, uploads_max - counters.uploads) then
    return 'share_full', math.ceil((has.uploads + 2 * upload_bytes - uploads_max + counters.uploads) / 2)
  end
  if sharer and spool_bytes > 0 and not is_in_share(has.spooled, spool_bytes, spool_max - counters.spooled) then
    return 'share_full', math.ceil((has.spooled + 2 * spool_bytes - spool_max + counters.spooled) / 2)
  end
  local refusal = refusal_of_records(counters, has, record_bytes, sharer)
  if refusal then return refusal, 0 end
  counters.uploads, counters.records = counters.uploads + upload_bytes, counters.records + record_bytes
  counters.spooled = counters.spooled + spool_bytes
  if sharer then
    has.uploads, has.records = has.uploads + upload_bytes, has.records + record_bytes
    has.spooled, has.is_spooled = has.spooled + spool_bytes, has.is_spooled or spool_bytes > 0
  end
  counters.accepted, has.pending, has.is_admitted = counters.accepted + jobs, has.pending + items, true
  if used then counters.used[key_id] = used end
  return nil, counters.accepted, used
end

local function write_counters(counters)
  local fields = { 'uploads', counters.uploads, 'records', counters.records, 'accepted', counters.accepted }
  local function put(field, value)
    fields[#fields + 1] = field
    fields[#fields + 1] = value
  end
  for owner, has in pairs(counters.owners) do
    if has.is_admitted then
      put('pending:' .. owner, has.pending)
      if has.records then
        put('uploads:' .. owner, has.uploads)
        if has.is_spooled then put('spooled:' .. owner, has.spooled) end
        if has.records > 0 then redis.call('ZADD', K.owners, has.records, owner) end
      end
    end
  end
  if #fields > 6 then redis.call('HSET', K.stats, unpack(fields)) end
  add_to_stat('spooled', counters.spooled - counters.spooled_before)
  local gone_ms = (counters.day + 1) * K.day_ms + 3600000 -- an hour late, in case that the clock is set back
  for key_id, used in pairs(counters.used) do
    redis.call('SET', K.items_of_day .. key_id .. ':' .. counters.day, used, 'PXAT', gone_ms)
  end
end
