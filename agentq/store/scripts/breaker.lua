-- breaker: one breaker, shared by all workers.
-- include: common
-- ARGV: 'admit', name, reset in ms
--       'report', name, reset in ms, 1 failed | 0 succeeded, attempt, failures that trip it, window in ms
-- Reply: admit: 0 when the call may go, else the ms until the next probe
--        report: 1 when the breaker is open now, else 0
-- Keeps: while open, one probe at a time; a probe that never reports is given up after the reset time.
local now = now_ms()
local key = K.breaker(ARGV[2])
local reset = tonumber(ARGV[3])
local f = redis.call('HMGET', key, 'state', 'until', 'probe')

if ARGV[1] == 'admit' then
  if f[1] ~= 'open' then return 0 end
  if now < tonumber(f[2]) then return tonumber(f[2]) - now end
  if f[3] and now < tonumber(f[3]) then return tonumber(f[3]) - now end
  redis.call('HSET', key, 'probe', now + reset)
  redis.call('PEXPIRE', key, RETENTION_MS)
  return 0
end

local failures = K.failures(ARGV[2])
if ARGV[4] == '0' then
  -- Only a probe closes it: a call that began before the trip and ends well says nothing of now.
  if f[1] == 'open' and f[3] then
    redis.call('HSET', key, 'state', 'closed')
    redis.call('HDEL', key, 'until', 'probe')
    redis.call('DEL', failures)
  end
  return 0
end
redis.call('ZADD', failures, now, ARGV[5])
redis.call('ZREMRANGEBYSCORE', failures, '-inf', now - tonumber(ARGV[7]))
redis.call('PEXPIRE', failures, ARGV[7])
if f[1] == 'open' or redis.call('ZCARD', failures) >= tonumber(ARGV[6]) then
  redis.call('HSET', key, 'state', 'open', 'until', now + reset)
  redis.call('HDEL', key, 'probe')
  redis.call('PEXPIRE', key, RETENTION_MS)
  return 1
end
return 0
