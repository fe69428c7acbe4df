-- Going on: who has just ended a short step takes the next one by the same script, and needs no other round trip for it.
-- include: claim backlog
-- next: {label, seat, queues, names, low, floor, most?, heard?, lingers?}: names are those of short steps (see name_among),
-- each between two line ends; seat tells those apart that go on in one worker; most: so many are taken at once where many wait; heard: a
-- bell was used up for it; lingers: for so many ms the seat waits for a next one, if there is none now.

-- Of what waits in a lane each seat takes so small a part at once, that the other workers run dry no sooner.
local PART_TAKEN = 16

local function next_reply(reply, take, queue, flags, message)
  for _, part in ipairs({ tonumber(take), queue, flags, message }) do reply[#reply + 1] = part end
  return reply
end

-- The reply to a commit that was asked again: what it took, as far as that is still held.
local function next_again(worker, seat, token)
  local noted, reply = redis.call('HGET', K.worker(worker), 'on:' .. seat) or '', { 1 }
  local known, first, last = string.match(noted, '^([^|]*)|(%d+)|?(%d*)$')
  if known ~= token then return reply end
  for take = tonumber(first), tonumber(last) or tonumber(first) do
    local entry = redis.call('HGET', K.held(worker), take)
    if entry then
      local queue, _, message = parts_of(entry)
      local root, id = name_of(message)
      local rec = K.step(root, id)
      next_reply(reply, take, queue, flag_of(root, id, rec, redis.call('HGET', rec, 'ov')), message)
    end
  end
  return reply
end

-- Takes one step, if the very next one in turn is such that this worker's child may go on with it. What is no step or
-- none of the short ones stays where it is: the worker's own take judges it. Suspects come first: while one waits, or
-- runs here, nobody goes on.
local function may_take_next(worker, next, alone)
  if alone or redis.call('EXISTS', K.dead(worker)) == 1 then return false end
  for _, queue in ipairs(next.queues) do
    if redis.call('EXISTS', K.suspects(queue)) == 1 then return false end
  end
  return true
end

-- The seat waits for a step for a moment: it, and not the worker's main process, is to hear of the first that comes.
local function linger(worker, next)
  local near = cjson.encode({ worker = worker, seat = next.seat, names = next.names, queues = next.queues })
  for _, queue in ipairs(next.queues) do redis.call('SET', K.near(queue), near, 'PX', next.lingers) end
end

-- It waits no longer.
local function stop_lingering(worker, next)
  for _, queue in ipairs(next.queues) do
    local text = redis.call('GET', K.near(queue))
    local near = text and cjson.decode(text)
    if near and near.worker == worker and near.seat == next.seat then redis.call('DEL', K.near(queue)) end
  end
end

local function take_next(worker, token, next, now)
  local card, reply = K.worker(worker), { 1 }
  local c = redis.call('HMGET', card, 'last', 'takes', 'alone')
  if not may_take_next(worker, next, c[3]) then
    if next.heard then
      for _, queue in ipairs(next.queues) do ring(queue) end
    end
    return reply
  end
  local first, before = math.max(tonumber(c[1] or 0), next.floor) + 1, tonumber(c[2] or 0)
  local last, most, over = first - 1, next.most or 1, false
  local function accept(queue, lane, message)
    local root, id, generation = name_of(message)
    local f = root and redis.call('HMGET', K.step(root, id), 's', 'g', 'a', 'ov', 'pr', 'k', 'hg', 'hd', 'nm', 'tn', 'v') or {}
    if root and (f[1] ~= 'q' or f[2] ~= generation) then return false end
    local name = root and not f[8] and name_among(f[6], f[9], f[11])
    if not name or not string.find(next.names, '\n' .. name .. '\n', 1, true) then
      put_back(queue, lane, f[10] or '', message)
      if next.heard then ring(queue) end
      over = true
      return true
    end
    local flags, stopped = claim(worker, next.label, last + 1, queue, lane, message, now, f)
    -- One of a run that stands still was set aside: whoever takes next sees to those behind it.
    if not flags then
      over = stopped
      return stopped
    end
    last = last + 1
    if most > 1 and last == first then
      most = math.min(most, 1 + math.floor(redis.call('LLEN', K.lane(queue, lane)) / PART_TAKEN))
    end
    next_reply(reply, last, queue, flags, message)
    return true
  end
  local function serve_one() return serve(next.queues, 1, before + last - first + 1, next.low, now, accept) end
  -- Dry lanes make room for what was held back.
  if serve_one() == 0 and refill(20, now) > 0 then serve_one() end
  while last >= first and last - first + 1 < most and not over and serve_one() > 0 do end
  if last >= first then
    local taken = last > first and first .. '|' .. last or first
    redis.call('HSET', card, 'last', last, 'takes', before + last - first + 1, 'on:' .. next.seat, token .. '|' .. taken)
  end
  if next.lingers and #reply == 1 then linger(worker, next) end
  return reply
end
