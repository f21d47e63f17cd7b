#!lua flags=allow-oom
-- Ends a lease and makes its chunks ready again.
-- ARGV: owner token, the lease's end that the caller saw ('' for any), why:
--   'returned'      given back unharmed, charges nothing
--   'worker_lost'   nobody renewed it: charges a loss
--   an item's code  its process died: a crash is charged to the item that a suspect run had reached, else to the chunk
-- Returns how many chunks were made ready.
local token, seen, why = ARGV[1], ARGV[2], ARGV[3]
local score = redis.call('ZSCORE', K.leases, token)
if not score or (seen ~= '' and tonumber(score) ~= tonumber(seen)) then return 0 end
local entries = redis.call('SMEMBERS', K.lease .. token)
local reached = redis.call('HGET', K.suspect_at, token)
redis.call('DEL', K.lease .. token)
redis.call('ZREM', K.leases, token)
redis.call('HDEL', K.suspect_at, token)

local function charge(charges, item)
  if why == 'worker_lost' then
    charges.losses = charges.losses + 1
  elseif item and item >= 0 then
    charges.items[tostring(item)] = (charges.items[tostring(item)] or 0) + 1
    charges.code = why
  else
    charges.crashes = charges.crashes + 1
    charges.code = why
  end
  return cjson.encode(charges)
end

local readied = 0
for _, entry in ipairs(entries) do
  local id, chunk, _, size = unpack_entry(entry)
  local record = redis.call('HMGET', K.job .. id, 's', 'w', 'm', 'l', 'x' .. chunk)
  if not live(record[1]) then
    drop_upload(entry, size)
  else
    if why ~= 'returned' then
      local charges = record[5] and cjson.decode(record[5]) or { losses = 0, crashes = 0, items = {} }
      redis.call('HSET', K.job .. id, 'x' .. chunk, charge(charges, tonumber(reached)))
    end
    if reached or (why ~= 'returned' and why ~= 'worker_lost') then
      local server = server_of(entry, record[3])
      redis.call('RPUSH', K.suspects .. server, entry)
      ring(server, doorbells_max(server))
    else
      call_for(record[3], record[4], record[2], entry, true)
    end
    readied = readied + 1
  end
end
return readied
