#!lua flags=allow-oom
-- Makes a version of a model known, and leaves what submits ring for it. A full Redis takes it, too: somebody has to
-- drain it. ARGV: name@version and its card, '' and '' for those who fetch; then model and doorbell's template of each.
-- Returns the card that is known of this version: an earlier one stays.
for at = 3, #ARGV, 2 do redis.call('SET', K.bell .. ARGV[at], ARGV[at + 1]) end
if ARGV[1] == '' then return '' end
redis.call('HSETNX', K.models, ARGV[1], ARGV[2])
return redis.call('HGET', K.models, ARGV[1])
