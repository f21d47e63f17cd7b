#!lua flags=allow-oom
-- Registers a version of a model and the doorbell templates that submits ring with. Allowed when Redis is out of
-- memory: only a worker that starts can drain it.
-- ARGV: name@version and its card ('' and '' for outbound workers), then model and doorbell template, for each model.
-- Returns the card that is registered for this version: an earlier one stays.
local ref, card = ARGV[1], ARGV[2]
for at = 3, #ARGV, 2 do
  local model, template = ARGV[at], ARGV[at + 1]
  redis.call('SET', K.doorbell_template .. model, template)
end
if ref == '' then return '' end
redis.call('HSETNX', K.model_cards, ref, card)
return redis.call('HGET', K.model_cards, ref)
