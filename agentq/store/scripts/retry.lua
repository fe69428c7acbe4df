-- retry: a running attempt begins its step's function again, in place.
-- include: common
-- ARGV: root, id, worker, take, number of the try that begins, the last one's error
-- Reply: 1 (also when asked again); 0 when another holds the step
-- Keeps: a stale attempt changes nothing (2); tries are counted across crashes.
local rec = K.step(ARGV[1], ARGV[2])
local f = redis.call('HMGET', rec, 's', 'w', 't', 'nt')
if f[1] ~= 'h' or f[2] ~= ARGV[3] or f[3] ~= ARGV[4] then return 0 end
if tonumber(f[4] or 0) >= tonumber(ARGV[5]) then return 1 end
redis.call('HSET', rec, 'nt', ARGV[5], 'e', ARGV[6])
redis.call('HINCRBY', rec, 'a', 1)
note_step(ARGV[1], rec, ARGV[2], 'retrying', now_ms(), { error = ARGV[6] })
return 1
