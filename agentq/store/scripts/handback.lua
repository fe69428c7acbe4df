-- handback: gathered messages become stock Celery's, or wait in the timers until agentq is there again.
-- include: common tree offer
-- ARGV: worker, then per entry five: take, 'give' | 'aside', queue, lane, message
--         give: the message, without a name, goes to the end of its lane, and its step's record ends; with an empty take
--         it is one more message of the entry before
--       or '', 'join', join: members of an open canvas join meet in stock Celery's own keys from now on
-- Reply: how many entries were still held, and have left
-- Keeps: custody until the message is stock Celery's (1); a record that stays has its message among the timers, due at
--   once, so that the next tick of any worker of agentq's puts it back into its lane.
-- Full server: runs, messages change their place only.
local worker = ARGV[1]
local now = now_ms()

if worker == '' then
  local root = ARGV[3]
  redis.call('DEL', K.join(root, root), K.bits(root, root))
  leave_tree(root)
  return 1
end

local n, gone = 0, false
for i = 2, #ARGV, 5 do
  local take, what, queue, lane, text = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
  local entry = take ~= '' and redis.call('HGET', K.held(worker), take)
  if entry then
    local _, _, message = parts_of(entry)
    local root, id, generation = name_of(message)
    redis.call('HDEL', K.held(worker), take)
    gone = true
    n = n + 1
    if root and what == 'aside' then
      redis.call('HINCRBY', K.step(root, id), 'a', -1)
      redis.call('HSET', K.step(root, id), 's', 'l')
      keep(root, id, rest_of(message))
      redis.call('ZADD', K.due(), ms_text(now), root .. '|' .. id .. '|' .. generation)
    elseif root then
      redis.call('DEL', K.step(root, id))
      leave_tree(root)
    end
  elseif take ~= '' then
    gone = false
  end
  if gone and what == 'give' then place_plain(queue, lane, text, now) end
end
return n
