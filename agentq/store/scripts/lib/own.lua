-- Own steps: a turn that waits for the one step which it has just sent takes what its slot runs next by the same script,
-- instead of waiting until another slot has done it.
-- include: cancel going_on
-- next: terms of going on; over: 1 while the turn's own step may go before others of its lane.

-- Whether a step of this lane may be taken before what waits: nothing is more urgent, no tenant's turn is passed over, and
-- it is not the lower lanes' turn. takes: how many this worker has taken.
local function may_go_first(next, lane, takes)
  if redis.call('EXISTS', K.shared()) == 1 then return false end
  local lower = next.low > 0 and math.floor((takes + 1) / next.low) > math.floor(takes / next.low)
  for _, other in ipairs({ 0, 3, 6, 9 }) do
    if other < lane or lower and other > lane then
      for _, queue in ipairs(next.queues) do
        if redis.call('EXISTS', K.lane(queue, other)) == 1 then return false end
      end
    end
  end
  return true
end

-- The message of the step that was queued just now, out of its lane again with its ring; nil when it is not there.
local function unqueue(o, queue, lane)
  local key = K.lane(queue, lane)
  local message = redis.call('LPOP', key)
  local root, id = name_of(message or '')
  if root == o.root and id == o.id then
    redis.call('LPOP', K.bell(queue))
    return message
  end
  if message then redis.call('LPUSH', key, message) end
  return nil
end

-- Takes the step that was offered just now, or what is to come before it, if that is a short one. Replies as take_next.
local function take_own(worker, token, next, o, now)
  local f = redis.call('HMGET', K.step(o.root, o.id), 's', 'q', 'l', 'rs', 'hd')
  -- Refused, held back, due later, or known since long.
  if f[1] ~= 'q' then return { 1 } end
  local card = K.worker(worker)
  local c = redis.call('HMGET', card, 'last', 'takes', 'alone')
  local before = tonumber(c[2] or 0)
  if next.over and not (f[4] or f[5]) and may_take_next(worker, next, c[3]) and may_go_first(next, tonumber(f[3]), before) then
    local message = unqueue(o, f[2], f[3])
    if message then
      local take = math.max(tonumber(c[1] or 0), next.floor) + 1
      local flags = claim(worker, next.label, take, f[2], f[3], message, now, nil, true)
      -- Its run stands still: it is in that run's line.
      if not flags then return { 1 } end
      redis.call('HSET', card, 'last', take, 'takes', before + 1, 'on:' .. next.seat, token .. '|' .. take)
      return next_reply({ 1 }, take, f[2], flags, message)
    end
  end
  local reply = take_next(worker, token, next, now)
  -- One came and one was taken: nobody need look for it.
  if reply[3] == f[2] then redis.call('LPOP', K.bell(f[2])) end
  return reply
end
