-- renew: the worker is alive for another lease.
-- include: common
-- ARGV: worker, lease in ms, then field, value… that changed on its card
-- Reply: 1; 0 when it was marked dead: it must stop what it runs
-- Keeps: a worker that was given up never comes back under its old id (3).
if redis.call('EXISTS', K.dead(ARGV[1])) == 1 then return 0 end
local now = now_ms()
if redis.call('ZADD', K.workers(), 'XX', 'CH', now + tonumber(ARGV[2]), ARGV[1]) == 0
  and not redis.call('ZSCORE', K.workers(), ARGV[1]) then
  return 0
end
local card = K.worker(ARGV[1])
if #ARGV > 2 then redis.call('HSET', card, unpack(ARGV, 3)) end
redis.call('PEXPIRE', card, math.max(tonumber(ARGV[2]) * 20, 3600000))
return 1
