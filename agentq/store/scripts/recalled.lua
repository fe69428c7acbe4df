-- recalled: which of the steps that a worker runs are to stop now.
-- include: common cancel
-- ARGV: worker, then per step root, id, take, seat ('' where none has gone on from it)
-- Reply: per step 0 go on, 1 nobody wants it any more, 2 another holds it, 3 it has ended, and nobody wants what its seat
--   has gone on with
-- Keeps: no effect of a step that nobody waits for goes on for long, nor two attempts side by side (3). A record that
--   names nobody proves nothing.
-- Full server: runs, it reads only.
local worker, replies = ARGV[1], {}

-- Whether the seat has gone on with something, and whether nobody wants that.
local function next_of(seat)
  local take = seat ~= '' and string.match(redis.call('HGET', K.worker(worker), 'on:' .. seat) or '', '(%d+)$')
  local entry = take and redis.call('HGET', K.held(worker), take)
  if not entry then return false, false end
  local _, _, message = parts_of(entry)
  local root, id = name_of(message)
  return true, root ~= nil and is_cancelled(root, id, K.step(root, id))
end

for i = 2, #ARGV, 4 do
  local root, id, take, seat = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local rec = K.step(root, id)
  local f = redis.call('HMGET', rec, 's', 'w', 't')
  local verdict = 0
  if f[1] == 'h' and f[2] == worker and f[3] == take then
    if is_cancelled(root, id, rec) then verdict = 1 end
  else
    -- A turn that was given up for a step in its slot, which turned out long, is another's by now; the step is not.
    local went_on, is_unwanted = next_of(seat)
    if is_unwanted then verdict = 3 elseif f[1] == 'h' and not went_on then verdict = 2 end
  end
  replies[#replies + 1] = verdict
end
return replies
