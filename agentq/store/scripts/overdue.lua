-- overdue: an attempt has passed its hard limit; its keeper kills it next, and the step is to end as timed out.
-- include: common
-- ARGV: worker, take
-- Reply: 1 when the attempt holds its step, else 0: its outcome is written, or another owns it
-- Keeps: the mark changes no owner: a commit that comes first still counts (2), and who takes the step after the kill ends
--   it instead of running it, so that it does not loop (9).
local entry = redis.call('HGET', K.held(ARGV[1]), ARGV[2])
if not entry then return 0 end
local _, _, message = parts_of(entry)
local root, id = name_of(message)
if not root then return 0 end
local rec = K.step(root, id)
local f = redis.call('HMGET', rec, 's', 'w', 't')
if f[1] ~= 'h' or f[2] ~= ARGV[1] or f[3] ~= ARGV[2] then return 0 end
redis.call('HSET', rec, 'ov', 1)
return 1
