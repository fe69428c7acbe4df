-- recalled: which of the steps that a worker runs are to stop now.
-- include: common cancel
-- ARGV: worker, then per step root, id, take, seat ('' where none has gone on from it)
-- Reply: per step 0 go on, 1 nobody wants it any more, 2 another holds it, 3 it has ended, and nobody wants what its seat
--   has gone on with
-- Keeps: no effect of a step that nobody waits for goes on for long, nor two attempts side by side (3). A record that
--   names nobody proves nothing.
-- Full server: runs, it reads only.
local worker, replies = ARGV[1], {}

local function is_next_unwanted(seat)
  local take = string.match(redis.call('HGET', K.worker(worker), 'on:' .. seat) or '', '(%d+)$')
  local entry = take and redis.call('HGET', K.held(worker), take)
  if not entry then return false end
  local _, _, message = parts_of(entry)
  local root, id = name_of(message)
  return root ~= nil and is_cancelled(root, id, K.step(root, id))
end

for i = 2, #ARGV, 4 do
  local root, id, take, seat = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local rec = K.step(root, id)
  local f = redis.call('HMGET', rec, 's', 'w', 't')
  local verdict = 0
  if f[1] == 'h' and (f[2] ~= worker or f[3] ~= take) then
    verdict = 2
  elseif f[1] == 'h' and is_cancelled(root, id, rec) then
    verdict = 1
  elseif f[1] ~= 'h' and seat ~= '' and is_next_unwanted(seat) then
    verdict = 3
  end
  replies[#replies + 1] = verdict
end
return replies
