-- sense: all that a controller goes by, of all its pools at one moment.
-- include: common standing
-- ARGV: JSON, per queue: {its name, ms within which timers count, how many attempts and asks the asker knows of, 1 when its
--   workers are to be told one by one | 0, 1 when it is to be told of which tasks the held messages are | 0}
-- Reply: {server's time in ms, JSON: of each queue in the order asked}: as in survey, and h messages held, l those of workers
--   that are not heard of any more, u suspects, t timers, and lines of gates, that fall due within the time, c 1 when a person has drained it, k how many attempts and asks there were; if these are not those
--   that the asker knows, p: (step, sums…) or (>agent, asks)…; if asked for, d: its workers, r: held messages by task
-- Keeps: it changes nothing, so any number may ask.
-- One argument: a client takes longer over some hundred of them than this takes.
local asked = cjson.decode(ARGV[1])
local now, stands, listed, named, horizons, furthest = now_ms(), {}, {}, {}, {}, 0
for _, question in ipairs(asked) do
  local queue = question[1]
  stands[queue] = new_stand()
  listed[queue], named[queue] = question[4] == 1, question[5] == 1
  horizons[queue] = question[2]
  furthest = math.max(furthest, question[2])
end
count_workers(stands, listed, named, now)
count_waits(stands, now)

-- Who wakes gives it back: until then it waits. A card may have ended, but each message names its queue.
local function count_lost(worker)
  local queues = redis.call('HGET', K.worker(worker), 'queues')
  for queue, held in pairs(held_of(worker, queues and cjson.decode(queues) or {}, redis.call('HLEN', K.held(worker)))) do
    if stands[queue] then stands[queue].l = (stands[queue].l or 0) + held end
  end
end

local PAGE = 100
local lapsed = redis.call('ZRANGEBYSCORE', K.workers(), '-inf', '(' .. ms_text(now), 'LIMIT', 0, PAGE)
for _, worker in ipairs(lapsed) do count_lost(worker) end
for _, worker in ipairs(redis.call('ZRANGE', K.reaping(), 0, PAGE - 1)) do count_lost(worker) end

local function count_due(name, at, many)
  local root, id = string.match(name, '^([^|]*)|([^|]*)|')
  local queue = root and root ~= '' and redis.call('HGET', K.step(root, id), 'q')
  if queue and stands[queue] and at <= now + horizons[queue] then
    stands[queue].t = (stands[queue].t or 0) + many(horizons[queue])
  end
end

-- A page of the timers stands for all of them within a pool's own time, where that reaches beyond the page.
local MOST = 200
local latest = ms_text(now + furthest)
local due, weights = redis.call('ZRANGEBYSCORE', K.due(), '-inf', latest, 'WITHSCORES', 'LIMIT', 0, MOST), {}
local function weight(horizon)
  if #due < 2 * MOST or tonumber(due[#due]) > now + horizon then return 1 end
  weights[horizon] = weights[horizon] or redis.call('ZCOUNT', K.due(), '-inf', ms_text(now + horizon)) / MOST
  return weights[horizon]
end
for i = 1, #due, 2 do count_due(due[i], tonumber(due[i + 1]), weight) end

-- Of a line that time moves, and not somebody's end, the first one is called when the gate is looked at next.
local looks = redis.call('ZRANGEBYSCORE', K.gates(), '-inf', latest, 'WITHSCORES', 'LIMIT', 0, PAGE)
for i = 1, #looks, 2 do
  local head = redis.call('ZRANGE', K.waiters(looks[i]), 0, 0)[1]
  local g = head and redis.call('HMGET', K.gate(looks[i]), 'st', 'wn', 'in', 'o', 'k')
  local by_time = g and (g[5] == 'b' and g[1] == 'open' or g[5] == 'r' and g[2] and tonumber(g[4] or 0) < tonumber(g[3] or 1e9))
  if by_time then count_due(head, tonumber(looks[i + 1]), function() return 1 end) end
end

local out = {}
for _, question in ipairs(asked) do
  local stand, flat = stands[question[1]], redis.call('HGETALL', K.pace(question[1]))
  local count = sum_pace(flat)
  for at = 1, #flat, 2 do
    if string.sub(flat[at], 1, 1) == '>' then count = count + flat[at + 1] end
  end
  stand.k = count
  if count ~= question[3] then
    stand.p = {}
    for at = 1, #flat, 2 do
      if flat[at] ~= '|' then
        table.insert(stand.p, flat[at])
        table.insert(stand.p, flat[at + 1])
      end
    end
  end
  out[#out + 1] = cjson.encode(stand)
end
return { ms_text(now), '[' .. table.concat(out, ',') .. ']' }
