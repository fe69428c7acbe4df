-- renew: the worker is alive for another lease.
-- include: common
-- ARGV: worker, lease in ms, then field, value… that changed on its card
-- Reply: 1, or {1, field, value…} of all that is drained; 0 when it was marked dead: it must stop what it runs; 2 when
--   nothing is known of it: the server has lost its data, and the worker enrolls again
-- Keeps: a worker that was given up never comes back under its old id (3).
if redis.call('EXISTS', K.dead(ARGV[1])) == 1 then return 0 end
local card = K.worker(ARGV[1])
-- A take makes a card and a place among the workers by itself; only enrolling writes since when.
if redis.call('HEXISTS', card, 'since') == 0 or not redis.call('ZSCORE', K.workers(), ARGV[1]) then return 2 end
redis.call('ZADD', K.workers(), now_ms() + tonumber(ARGV[2]), ARGV[1])
if #ARGV > 2 then redis.call('HSET', card, unpack(ARGV, 3)) end
for i = 3, #ARGV, 2 do
  if ARGV[i] == 'warm' and ARGV[i + 1] ~= '' then redis.call('HSET', K.warm(), ARGV[1], ARGV[i + 1]) end
  if ARGV[i] == 'warm' and ARGV[i + 1] == '' then redis.call('HDEL', K.warm(), ARGV[1]) end
end
redis.call('PEXPIRE', card, math.max(tonumber(ARGV[2]) * 20, 3600000))
-- A person's few commands: the worker itself looks which of them are meant for it.
local drained = redis.call('HGETALL', K.drained())
if #drained == 0 then return 1 end
return { 1, unpack(drained) }
