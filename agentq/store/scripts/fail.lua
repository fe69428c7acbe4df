-- fail: a plain Celery task has failed in a chain; who waits for what stood behind it is told.
-- include: common tree offer join finish
-- ARGV: root, number of tasks behind it; per task: id, Celery's meta of its failure; then per agent: run, entry
-- Reply: 1
-- Keeps: no wake is lost (5): an agent hears of a canvas that will never end, once however often the task fails.
local root, now = ARGV[1], now_ms()
local behind = 2 * tonumber(ARGV[2])

local told = {}
for i = behind + 3, #ARGV, 2 do
  local run, entry = ARGV[i], ARGV[i + 1]
  local ask = cjson.decode(entry).id
  told[ask] = true
  local f = redis.call('HMGET', K.step(root, run), 's', 'seg')
  -- Remembered beside the ids of signals, whose way it goes: an input from outside.
  if f[1] and f[1] ~= 'd'
    and redis.call('HSETNX', K.signals(root, run), 'canvas ' .. ask, (f[2] or 0) .. ' fail') == 1 then
    tell(root, run, entry, now)
  end
end

for i = 3, behind + 2, 2 do
  local id, meta = ARGV[i], ARGV[i + 1]
  if redis.call('HGET', K.step(root, id), 's') == 'r' then
    redis.call('SET', K.result(id), meta)
    redis.call('PUBLISH', K.result(id), meta)
    finish_replaced(root, id, meta, told, now)
  end
end
return 1
