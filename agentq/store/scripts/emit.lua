-- emit: lines of history from a running attempt.
-- include: common
-- ARGV: root, id, worker, take, then per event a JSON object without its time
-- Reply: 1; 0 when another holds the step
-- Keeps: a stale attempt writes no event (2).
local f = redis.call('HMGET', K.step(ARGV[1], ARGV[2]), 's', 'w', 't')
if f[1] ~= 'h' or f[2] ~= ARGV[3] or f[3] ~= ARGV[4] then return 0 end
local now = now_ms()
for i = 5, #ARGV do note(ARGV[1], ARGV[i], now) end
return 1
