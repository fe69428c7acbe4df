-- emit: lines of history from a running attempt.
-- include: common
-- ARGV: root, id, worker, take, token, then per event a JSON object without its time
-- Reply: 1; 0 when another holds the step
-- Keeps: a stale attempt writes no event (2); the same token writes once.
local rec = K.step(ARGV[1], ARGV[2])
local f = redis.call('HMGET', rec, 's', 'w', 't', 'et')
if f[1] ~= 'h' or f[2] ~= ARGV[3] or f[3] ~= ARGV[4] then return 0 end
if f[4] == ARGV[5] then return 1 end
redis.call('HSET', rec, 'et', ARGV[5])
local now = now_ms()
for i = 6, #ARGV do note(ARGV[1], ARGV[i], now) end
return 1
