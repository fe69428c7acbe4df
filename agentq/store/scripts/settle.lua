-- settle: ends a worker's custody of one message that no commit ends: a plain message acknowledged or put back, a
-- durable one handed back by its owner.
-- include: common tree offer suspects letters release
-- ARGV: worker, take, 'drop' | 'requeue' | 'lost', seat of the attempt where it may have gone on
--         drop: a plain message is done with; requeue: handed back; lost: its attempt died, which counts as a death
-- Reply: 1 when something was held under that number and has left, 2 when that was condemned to the dead letters,
--        else 0
-- Keeps: a message leaves custody only by its owner's word, a step never by being dropped (1); a hand-back does not
--   count as a start (9).
-- Full server: runs, what is in custody can end.
local worker, take, how = ARGV[1], ARGV[2], ARGV[3]
-- A child of a pool that dies takes its own attempt with it and no other: the blame is its step's alone.
if how ~= 'drop' then
  local company, now = how == 'lost' and 1 or nil, now_ms()
  -- What the child ran when it died: its attempt has ended and its commit has taken that, or it is a turn that has taken a
  -- step for its own slot, and rested meanwhile.
  local next = ARGV[4] and string.match(redis.call('HGET', K.worker(worker), 'on:' .. ARGV[4]) or '', '(%d+)$')
  local gone = next and give_back(worker, next, company, now) or 0
  if gone == 0 then return give_back(worker, take, company, now) end
  give_back(worker, take, nil, now)
  return gone
end
local entry = redis.call('HGET', K.held(worker), take)
if not entry then return 0 end
local _, _, message = parts_of(entry)
local root, id = name_of(message)
if root then
  local f = redis.call('HMGET', K.step(root, id), 's', 'w', 't')
  -- Dropped, it would be held by nobody and done by nobody: only its commit ends it.
  if f[1] == 'h' and f[2] == worker and f[3] == take then return 0 end
end
return redis.call('HDEL', K.held(worker), take)
