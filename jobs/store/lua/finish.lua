#!lua flags=allow-oom
-- Writes the results of chunks that are still under this lease; other chunks are ignored.
-- ARGV: owner token, model whose doorbell to ring if work is left ('' for none), bytes of records up to which failed
--       images are retained, bytes of the spool up to which it keeps some, then for each chunk: chunk reference,
--       succeeded items, results, failed images to retain ('' for none) or a pointer to their file.
-- Returns how many items reached their terminal state.
local token, ring_model, retained_budget, spool_budget = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local lease = K.leased_chunks .. token
local now = now_ms()
local spool_added, records_added, drained, items_ended = 0, 0, 0, 0
local notices, items_of_owner = {}, {}
local changes = {} -- by sharer, false for none: bytes of uploads, of the spool, of records; ids of jobs that ended

local function changes_of(sharer)
  if not changes[sharer] then changes[sharer] = { uploads = 0, spooled = 0, records = 0, ended_ids = {} } end
  return changes[sharer]
end

-- The record bytes and the bytes of the spool that the failed images take; 0 and 0 if they are over a budget, or over
-- their owner's share of it, and not retained.
local function retained_bytes(retained, sharer, change)
  if retained == '' then return 0, 0 end
  local bytes, in_spool = stored_bytes(retained) + K.chunk_record_bytes, spooled_size(retained) or 0
  local records, spooled = unpack(redis.call('HMGET', K.stats, 'records', 'spooled'))
  local records_free = retained_budget - (tonumber(records) or 0) - records_added
  local spool_free = spool_budget - (tonumber(spooled) or 0) - spool_added
  if bytes > records_free or in_spool > 0 and in_spool > spool_free then return 0, 0 end
  if sharer then
    local own_records = (tonumber(redis.call('ZSCORE', K.owners, sharer)) or 0) + change.records
    local own_spooled = (tonumber(redis.call('HGET', K.stats, 'spooled:' .. sharer)) or 0) + change.spooled
    if not is_in_share(own_records, bytes, records_free) or not is_in_share(own_spooled, in_spool, spool_free) then
      return 0, 0
    end
  end
  return bytes, in_spool
end

local function finish(chunk_ref, chunk_succeeded, results, retained)
  local id, chunk, chunk_items, size = unpack_chunk_ref(chunk_ref)
  local job, results_field = K.job .. id, F.results .. chunk
  local state, owner, in_share, items, succeeded, failed, record_bytes, result_bytes, webhook_url, in_spool_before,
    earlier_results, progress = unpack(redis.call('HMGET', job, F.state, F.owner, F.in_share, F.items, F.succeeded,
      F.failed, F.record_bytes, F.result_bytes, F.webhook_url, F.retained_spooled, results_field, F.progress .. chunk))
  if not is_live(state) or earlier_results then return end

  local sharer = in_share and owner
  local change = changes_of(sharer)
  if redis.call('UNLINK', K.upload .. string.sub(chunk_ref, 1, 20)) == 1 then
    local upload_bytes, spool_bytes = upload_cost(size, string.byte(chunk_ref, 21) % 128 >= 64)
    change.uploads, change.spooled = change.uploads - upload_bytes, change.spooled - spool_bytes
    spool_added, drained = spool_added - spool_bytes, drained + upload_bytes + spool_bytes
  end
  succeeded = (tonumber(succeeded) or 0) + chunk_succeeded
  failed = (tonumber(failed) or 0) + chunk_items - chunk_succeeded
  local more_for_retry, in_spool = retained_bytes(retained, sharer, change)
  local freed = chunk_items * (result_bytes or 0)
  if progress then -- the results have it
    freed = freed + stored_bytes(progress)
    redis.call('HDEL', job, F.progress .. chunk)
  end
  local added = stored_bytes(results) + more_for_retry - freed
  local fields = { results_field, results, F.record_bytes, record_bytes + added }
  local function put(field, value)
    fields[#fields + 1] = field
    fields[#fields + 1] = value
  end
  if chunk_succeeded > 0 then put(F.succeeded, succeeded) end
  if chunk_succeeded < chunk_items then put(F.failed, failed) end
  if more_for_retry > 0 then put(F.retained .. chunk, retained) end
  if in_spool > 0 then put(F.retained_spooled, (tonumber(in_spool_before) or 0) + in_spool) end
  if state ~= STATE.open and pending_of(items, succeeded, failed) == 0 then
    state = succeeded > 0 and STATE.completed or STATE.failed
    put(F.state, state)
    put(F.ended_ms, now)
    change.ended_ids[#change.ended_ids + 1] = id
    notices[#notices + 1] = pack_notice(id, items == '1' and state .. struct.pack('>d', now) .. results or '')
    if webhook_url then redis.call('ZADD', K.webhooks_due, now, id) end
  else
    put(F.active_ms, now)
  end
  redis.call('HSET', job, unpack(fields))
  records_added, spool_added = records_added + added, spool_added + in_spool
  change.records, change.spooled = change.records + added, change.spooled + in_spool
  items_ended = items_ended + chunk_items
  items_of_owner[owner] = (items_of_owner[owner] or 0) + chunk_items
end

local chunk_refs, is_leased = {}, {}
for at = 5, #ARGV, 4 do chunk_refs[#chunk_refs + 1] = ARGV[at] end
if #chunk_refs > 0 then
  for at, found in ipairs(redis.call('SMISMEMBER', lease, unpack(chunk_refs))) do
    is_leased[chunk_refs[at]] = found == 1
  end
  redis.call('SREM', lease, unpack(chunk_refs))
end
for at = 5, #ARGV, 4 do
  local chunk_ref, succeeded, results, retained = unpack(ARGV, at, at + 3)
  if is_leased[chunk_ref] then
    is_leased[chunk_ref] = false -- a chunk that is named twice counts once
    finish(chunk_ref, tonumber(succeeded), results, retained)
  end
end

for sharer, change in pairs(changes) do
  add_to_uploads(sharer, change.uploads, change.spooled)
  add_to_records(sharer, change.records)
  if #change.ended_ids > 0 then list_ended(sharer, change.ended_ids, now) end
end
add_to_stat('drained', drained)
add_to_stat('transitions', items_ended)
for owner, items in pairs(items_of_owner) do add_to_stat('pending:' .. owner, -items) end
drop_lease_if_empty(token)
if #notices > 0 then redis.call('PUBLISH', K.channel, table.concat(notices)) end
if ring_model ~= '' and has_ready(ring_model) then ring_doorbell(ring_model, doorbells_max(ring_model)) end
return items_ended
