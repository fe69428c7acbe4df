-- enroll: a worker's id becomes alive: once per process start, and again when the server has lost its data.
-- include: common
-- ARGV: worker, lease in ms, floor (the highest take number that the process has seen), then field, value… of its card
--   (label, queues, concurrency, pid, …)
-- Reply: 1, or 0 when the id was marked dead before: it is never enrolled again
-- Keeps: a take number is never used twice under one id (2).
if redis.call('EXISTS', K.dead(ARGV[1])) == 1 then return 0 end
local now = now_ms()
local card = K.worker(ARGV[1])
local last = math.max(tonumber(redis.call('HGET', card, 'last') or 0), tonumber(ARGV[3]))
redis.call('HSET', card, 'since', ms_text(now), 'last', last, unpack(ARGV, 4))
redis.call('PEXPIRE', card, math.max(tonumber(ARGV[2]) * 20, 3600000))
redis.call('ZADD', K.workers(), now + tonumber(ARGV[2]), ARGV[1])
return 1
