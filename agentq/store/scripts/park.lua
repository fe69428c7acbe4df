-- park: the agent gives its worker back until an input comes.
-- include: common pace
-- ARGV: root, run, worker, take, entries of the log that the turn has seen, due in ms or '', JSON list of the signal
--       names that are waited for, ms for which wakes are held back
-- Reply: 1 parked; 0 go on, the log has grown; -1 another holds the run
-- Keeps: what arrived before the park is seen by it (5); a parked run holds no worker and no message (6).
-- Full server: runs, what is in custody can end.
local root, run, worker, take, seen, due = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6]
local rec = K.step(root, run)
local f = redis.call('HMGET', rec, 's', 'w', 't', 'g', 'pt', 'q', 'b', 'nm')
-- A repeat of a park that was answered into a lost connection: the run is parked, or already woken again.
if f[5] == worker .. '|' .. take then return 1 end
if f[1] ~= 'h' or f[2] ~= worker or f[3] ~= take then return -1 end
if redis.call('LLEN', K.log(root, run)) > seen then return 0 end
local now = now_ms()
local entry = redis.call('HGET', K.held(worker), take)
local _, _, message = parts_of(entry)
local generation = tonumber(f[4]) + 1
redis.call('HDEL', K.held(worker), take)
redis.call('DEL', K.wake(root, run))
redis.call('HSET', rec, 's', 'p', 'g', generation, 'sw', ARGV[7], 'd', 0, 'pt', worker .. '|' .. take)
-- Its keeper may have marked it as overdue just before it came to rest, and has left it alone since.
redis.call('HDEL', rec, 'ov')
if ARGV[8] == '0' then redis.call('HDEL', rec, 'hb') else redis.call('HSET', rec, 'hb', ms_text(now + ARGV[8])) end
keep(root, run, rest_of(message))
if due ~= '' then redis.call('ZADD', K.due(), due, root .. '|' .. run .. '|' .. generation) end
note_pace(f[6], f[8], f[7], take, now)
note_step(root, rec, run, 'parked', now)
return 1
