-- recalled: which of the steps that a worker runs are to stop now.
-- include: common cancel
-- ARGV: worker, then per step root, id, take
-- Reply: per step 0 go on, 1 nobody wants it any more, 2 another holds it
-- Keeps: no effect of a step that nobody waits for goes on for long, nor two attempts side by side (3). A record that
--   names nobody proves nothing.
local worker, replies = ARGV[1], {}
for i = 2, #ARGV, 3 do
  local root, id, take = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local rec = K.step(root, id)
  local f = redis.call('HMGET', rec, 's', 'w', 't')
  local verdict = 0
  if f[1] == 'h' and (f[2] ~= worker or f[3] ~= take) then
    verdict = 2
  elseif f[1] == 'h' and is_cancelled(root, id, rec) then
    verdict = 1
  end
  replies[#replies + 1] = verdict
end
return replies
