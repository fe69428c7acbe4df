-- gather: moves what waits in lanes or stands in the timers into the custody of one who hands it back to stock Celery.
-- include: common tree offer suspects letters turns gates
-- ARGV: worker, its label, chunk, 'lane', queue, lane
--       … 'suspects', queue
--       … 'names', names (root|step|generation) of timers, of what waits for guards, or in split mode of what the broker is
--         to hear of
-- Reply: how many were looked at; fewer than chunk means that there were no more; -1 the worker was marked dead
-- Keeps: no instant exists at which a step is in no list (1): if the one who hands back dies, tick releases what it holds;
--   a message whose record says something else is dropped, as at a take.
local worker, label, chunk, what = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
-- Stopped for longer than its lease, it was reaped already: what it gathered now would be nobody's to release.
if redis.call('EXISTS', K.dead(worker)) == 1 then return -1 end
local now = now_ms()
local held, card = K.held(worker), K.worker(worker)
local seen = 0

local function hold(queue, lane, message)
  local take = redis.call('HINCRBY', card, 'last', 1)
  local root, id = name_of(message)
  if not root then message = without_stamp(message) end
  if root then
    redis.call('HSET', K.step(root, id), 's', 'h', 'w', worker, 't', take, 'wl', label)
    redis.call('HINCRBY', K.step(root, id), 'a', 1)
    -- A place that it was called to goes to others.
    local reserved = redis.call('HGET', K.step(root, id), 'gd')
    if reserved then
      redis.call('HDEL', K.step(root, id), 'gd')
      settle_guards(root, id, reserved, { idle = true }, now)
    end
  end
  redis.call('HSET', held, take, entry_of(queue, lane, message))
end

local function is_current(message)
  local root, id, generation = name_of(message)
  if not root then return true end
  local f = redis.call('HMGET', K.step(root, id), 's', 'g')
  return f[1] == 'q' and f[2] == generation
end

if what == 'names' then
  for i = 5, #ARGV do
    seen = seen + 1
    local root, id, generation = string.match(ARGV[i], '^([^|]*)|([^|]*)|(%d+)$')
    local f = redis.call('HMGET', K.step(root, id), 's', 'g', 'q', 'l', 'tn', 'ln')
    local deferred = root == '' and not redis.call('ZSCORE', K.letters(), id)
      and redis.call('HMGET', K.letter(id), 'q', 'l', 'm')
    if deferred and deferred[3] then
      -- A plain message that waits for a worker with its task.
      redis.call('ZREM', K.due(), ARGV[i])
      redis.call('DEL', K.letter(id))
      hold(deferred[1], deferred[2], deferred[3])
    elseif f[2] == generation and (f[1] == 'l' or SPLIT and f[1] == 'q') then
      redis.call('ZREM', K.due(), ARGV[i])
      if f[6] then redis.call('ZREM', K.waiters(f[6]), ARGV[i]) end
      unlist(ARGV[i], f[3], f[4])
      leave_backlog(ARGV[i], K.step(root, id), f[3], f[4])
      if f[1] == 'q' then pull_line('split', f[3], f[4], f[5] or '', ARGV[i]) end
      hold(f[3], f[4], message_of(root, id, generation, take_kept(root, id)))
    elseif SPLIT then
      -- A hint that was to be told for what is taken already.
      redis.call('ZREM', K.unsent(), ARGV[i])
    end
  end
  return seen
end

local queue, lane = ARGV[5], ARGV[6]
local function next_one()
  if what == 'lane' then return pop_line('fused', queue, lane) end
  local found, message = suspect_at(redis.call('RPOP', K.suspects(queue)))
  lane = found
  return message
end

while seen < chunk do
  local message = next_one()
  if not message then break end
  seen = seen + 1
  if is_current(message) then hold(queue, lane, message) end
end
return seen
