-- How queues stand: who serves them, what waits in them, how long their attempts take.
-- include: backlog suspects

local LANES = { 0, 3, 6, 9 }

local function new_stand() return { w = 0, x = 0, s = 0, b = 0, h = 0, n = {}, hb = {} } end

-- How many messages a worker holds of each of its queues.
local function held_of(worker, queues, held)
  local found = {}
  if #queues == 1 or held == 0 then
    if queues[1] then found[queues[1]] = held end
    return found
  end
  for _, entry in ipairs(redis.call('HVALS', K.held(worker))) do
    local length, start = string.match(entry, '^%d+\n(%d+)\n()')
    local queue = string.sub(entry, start, start + tonumber(length) - 1)
    found[queue] = (found[queue] or 0) + 1
  end
  return found
end

-- How many of each task a worker holds, into stands of the queues in `named`.
local function name_held(worker, stands, named)
  for _, entry in ipairs(redis.call('HVALS', K.held(worker))) do
    local length, start = string.match(entry, '^%d+\n(%d+)\n()')
    local queue = string.sub(entry, start, start + tonumber(length) - 1)
    local name = named[queue] and string.match(entry, '"task": ?"([^"]*)"', start)
    if name then
      stands[queue].r = stands[queue].r or {}
      stands[queue].r[name] = (stands[queue].r[name] or 0) + 1
    end
  end
end

-- Counts workers into stands by queue: w that take, x that do not, s slots and b busy ones of those that take, h messages
-- held. Of a queue in `named` it is told of which tasks these are (r), and of one in `listed` its workers one by one, as
-- {id, instance, since, held, 1 when it takes nothing, its own mark of draining}; each is in all of its queues.
local function count_workers(stands, listed, named, now)
  local closed, parsed = {}, {}
  for queue in pairs(stands) do closed[queue] = redis.call('HEXISTS', K.drained(), 'pool|' .. queue) == 1 end
  for _, worker in ipairs(redis.call('ZRANGEBYSCORE', K.workers(), ms_text(now), '+inf')) do
    local f = redis.call('HMGET', K.worker(worker), 'queues', 'slots', 'report')
    if f[1] then
      -- Workers of one pool say the same: decoded once for all of them.
      parsed[f[1]] = parsed[f[1]] or cjson.decode(f[1])
      local queues, slots = parsed[f[1]], tonumber(f[2] or 1)
      local held, rests = redis.call('HLEN', K.held(worker)), f[3] and string.find(f[3], '"why":', 1, true)
      local by_queue, entry, is_named = nil, nil, false
      for _, queue in ipairs(queues) do
        local stand = stands[queue]
        if stand then
          by_queue = by_queue or held_of(worker, queues, held)
          stand.h = stand.h + (by_queue[queue] or 0)
          is_named = is_named or named[queue]
          if rests or closed[queue] then
            stand.x = stand.x + 1
          else
            stand.w, stand.s, stand.b = stand.w + 1, stand.s + slots, stand.b + math.min(held, slots)
          end
        end
        if stand and listed[queue] then
          if not entry then
            local c = redis.call('HMGET', K.worker(worker), 'details', 'since')
            local instance = string.match(c[1] or '', '"instance": ?"([^"]*)"')
            local mark = redis.call('HGET', K.drained(), 'worker|' .. worker)
            entry = { worker, instance or '', c[2] or '', held, rests and 1 or 0, mark or '' }
          end
          stand.d = stand.d or {}
          table.insert(stand.d, entry)
        end
      end
      if is_named and held > 0 then name_held(worker, stands, named) end
    end
  end
  for queue, stand in pairs(stands) do stand.c = closed[queue] and 1 or nil end
end

-- Since when the one that is next in a lane waits; nil when that is not known.
local function waits_since(queue, lane, now)
  local entry = peek_line(WAY, queue, lane) or ''
  local root, id = name_of(entry)
  if SPLIT then root, id = string.match(entry, '^([^|]+)|([^|]+)|') end
  if not root then return nil end
  local f = redis.call('HMGET', K.step(root, id), 'sq', 'c')
  return tonumber(f[1] or f[2] or now)
end

-- What waits in each lane (n), what is held back from it (hb), the suspects (u), and for how many ms the oldest waits (o).
local function count_waits(stands, now)
  local held_back = {}
  for _, field in ipairs(redis.call('HKEYS', K.backlogs())) do
    local queue, lane, tenant = backlog_parts(field)
    local name = lane .. '|' .. queue
    held_back[name] = (held_back[name] or 0) + redis.call('LLEN', backlog_of(queue, lane, tenant))
  end
  for queue, stand in pairs(stands) do
    local oldest = nil
    for i, lane in ipairs(LANES) do
      stand.n[i] = count_waiting(queue, lane)
      stand.hb[i] = held_back[lane .. '|' .. queue] or 0
      local since = stand.n[i] > 0 and waits_since(queue, lane, now)
      if since and (not oldest or since < oldest) then oldest = since end
    end
    local suspects = K.suspects(queue)
    stand.u = redis.call('LLEN', suspects)
    if stand.u > 0 then
      local _, _, since = suspect_at(redis.call('LINDEX', suspects, -1))
      if since and (not oldest or tonumber(since) < oldest) then oldest = tonumber(since) end
    end
    stand.o = oldest and math.max(now - oldest, 0) or -1
  end
end

-- The sums of all steps of a queue, attempts and ms.
local function sum_pace(flat)
  local n, ms = 0, 0
  for i = 1, #flat, 2 do
    local count, took = string.match(flat[i + 1], '^(%d+)|(%d+)|%d+|%d+|%d+|%d+$')
    if count then n, ms = n + count, ms + took end
  end
  return n, ms
end

-- The mean in ms, and attempts a second; nil where none was ever measured. What was lately counts most: of eight new
-- attempts the mean takes on a half, the rate takes on what ten seconds say.
local function fold_pace(queue, now)
  local key = K.pace(queue)
  local total, ms = sum_pace(redis.call('HGETALL', key))
  local known_n, known_ms, mean, rate, at = string.match(redis.call('HGET', key, '|') or '',
    '^(%d+) (%d+) ([%d.]+) ([%d.]+) (%d+)$')
  local n = total - tonumber(known_n or 0)
  mean, rate = tonumber(mean), tonumber(rate or 0)
  if total == 0 then return nil, 0 end
  if n > 0 then
    local latest = (ms - tonumber(known_ms or 0)) / n
    mean = mean and mean + (latest - mean) * n / (n + 8) or latest
  end
  local passed = math.max(now - tonumber(at or now), 0)
  if passed > 0 then rate = rate + (n * 1000 / passed - rate) * (1 - math.exp(-passed / 10000)) end
  redis.call('HSET', key, '|', string.format('%.0f %.0f %.3f %.4f %.0f', total, ms, mean, rate, now))
  return mean, rate
end
