-- progress: a state that is not an outcome, set by the running attempt (update_state, STARTED).
-- include: common
-- ARGV: root, id, worker, take, Celery's meta as JSON
-- Reply: 1; 0 when another holds the step
-- Keeps: a stale attempt changes nothing (2): it cannot overwrite an outcome, nor can one whose hedge has answered for it.
local f = redis.call('HMGET', K.step(ARGV[1], ARGV[2]), 's', 'w', 't')
if f[1] ~= 'h' or f[2] ~= ARGV[3] or f[3] ~= ARGV[4] then return 0 end
-- It still runs, and what stands under its id is the answer already.
if redis.call('HEXISTS', K.step(ARGV[1], ARGV[2]), 'aw') == 1 then return 1 end
redis.call('SET', K.result(ARGV[2]), ARGV[5])
redis.call('PUBLISH', K.result(ARGV[2]), ARGV[5])
return 1
