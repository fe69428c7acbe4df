-- drop: a person gives a dead letter up. A plain message is deleted; a step is held by the caller, who is to commit its
-- failure, so that its join and its parent go on.
-- include: common tree offer suspects letters
-- ARGV: letter, worker (a fresh id, enrolled by this), its label
-- Reply: {1} deleted; {2, root, take, message} held; {0} there is no such letter; {-1} somebody else is dropping it now
-- Keeps: in custody until the failure is written (1): if the caller dies, the letter stands as before; one can commit (2).
local id, worker, label = ARGV[1], ARGV[2], ARGV[3]
local now = now_ms()
local f = redis.call('HMGET', K.letter(id), 'q', 'l', 'm', 'root')
if not redis.call('ZSCORE', K.letters(), id) then return { 0 } end
if not f[4] then
  forget_letter(id)
  return { 1 }
end
local rec = K.step(f[4], id)
local r = redis.call('HMGET', rec, 's', 'g', 'w')
if r[1] == 'h' and r[3] == worker then return { 2, f[4], 1, f[3] } end
if r[1] ~= 'x' or redis.call('EXISTS', K.dead(worker)) == 1 then return { -1 } end
redis.call('HSET', rec, 's', 'h', 'w', worker, 't', 1, 'wl', label)
redis.call('HSET', K.held(worker), 1, entry_of(f[1], f[2], message_of(f[4], id, r[2], rest_of(f[3]))))
redis.call('ZADD', K.workers(), now + 60000, worker)
return { 2, f[4], 1, f[3] }
