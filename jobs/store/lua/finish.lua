#!lua flags=allow-oom
-- Writes the results of chunks that this owner still holds; others are refused without a trace.
-- ARGV: owner token, model to ring for if work is left ('' for none), bytes of records up to which failed images are
--       kept, then for each chunk: entry, succeeded, results, failed images to be kept ('' for none).
-- Returns how many items reached their terminal state.
local token = ARGV[1]
local lease = K.lease .. token
local now = now_ms()
local uploads, records, finished = 0, 0, 0
local ended, notices, pending = {}, {}, {}

-- What keeping so much takes, or 0 where there is no room for it.
local function room_for(kept)
  if kept == '' then return 0 end
  local more = stored(kept) + K.row_bytes
  local taken = (tonumber(redis.call('HGET', K.stats, 'records')) or 0) + records
  return taken + more <= tonumber(ARGV[3]) and more or 0
end

local entries, held = {}, {}
for at = 4, #ARGV, 4 do entries[#entries + 1] = ARGV[at] end
if #entries > 0 then
  for at, is_held in ipairs(redis.call('SMISMEMBER', lease, unpack(entries))) do held[entries[at]] = is_held == 1 end
  redis.call('SREM', lease, unpack(entries))
end
for at = 4, #ARGV, 4 do
  local entry, succeeded, results, kept = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2], ARGV[at + 3]
  if held[entry] then
    held[entry] = false -- it counts once, also where it is named twice
    local id, chunk, items, size = unpack_entry(entry)
    local job = K.job .. id
    if redis.call('UNLINK', K.upload .. string.sub(entry, 1, 20)) == 1 then
      uploads = uploads + size + K.chunk_bytes
    end
    local record = redis.call('HMGET', job, 's', 'w', 'n', 'd', 'f', 'z', 'h', 'r' .. chunk)
    if live(record[1]) and not record[8] then
      local done = (tonumber(record[4]) or 0) + succeeded
      local failed = (tonumber(record[5]) or 0) + items - succeeded
      local keeping = room_for(kept)
      local more = stored(results) + keeping
      local fields = { 'r' .. chunk, results, 'z', record[6] + more }
      if succeeded > 0 then fields[5], fields[6] = 'd', done end
      if succeeded < items then fields[#fields + 1], fields[#fields + 2] = 'f', failed end
      if keeping > 0 then fields[#fields + 1], fields[#fields + 2] = 'b' .. chunk, kept end
      if record[1] ~= 'o' and done + failed == tonumber(record[3]) then
        local state = done > 0 and 'c' or 'f'
        for _, value in ipairs({ 's', state, 'e', now }) do fields[#fields + 1] = value end
        ended[#ended + 1] = id
        notices[#ended] = notice(id, record[3] == '1' and state .. struct.pack('>d', now) .. results or '')
        if record[7] then redis.call('ZADD', K.hooks, now, id) end
      end
      redis.call('HSET', job, unpack(fields))
      records = records + more
      finished = finished + items
      pending[record[2]] = (pending[record[2]] or 0) + items
    end
  end
end

count('uploads', -uploads)
count('drained', uploads)
count('records', records)
count('transitions', finished)
for owner, items in pairs(pending) do count('pending:' .. owner, -items) end
if redis.call('EXISTS', lease) == 0 then
  redis.call('ZREM', K.leases, token)
  redis.call('HDEL', K.suspect_at, token)
end
if #ended > 0 then
  redis.call('RPUSH', K.ended, unpack(ended))
  redis.call('PUBLISH', K.channel, table.concat(notices))
end
if ARGV[2] ~= '' and has_ready(ARGV[2]) then ring(ARGV[2], doorbells_max(ARGV[2])) end
return finished
