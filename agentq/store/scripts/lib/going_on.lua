-- Going on: who has just ended a short step takes the next one by the same script, and needs no other round trip for it.
-- include: claim backlog
-- next: {label, seat, queues, names, low, floor, heard?}: names are those of short steps, each between two line ends; seat
-- tells those apart that go on in one worker; heard: a bell was used up for it.

local function next_reply(take, queue, flags, message)
  return { 1, tonumber(take), queue, flags, message }
end

-- The reply to a commit that was asked again: what it took, if that is still held.
local function next_again(worker, seat, token)
  local known, take = string.match(redis.call('HGET', K.worker(worker), 'on:' .. seat) or '', '^(.*)|(%d+)$')
  local entry = known == token and redis.call('HGET', K.held(worker), take)
  if not entry then return { 1 } end
  local queue, _, message = parts_of(entry)
  local root, id = name_of(message)
  local rec = K.step(root, id)
  return next_reply(take, queue, flag_of(root, id, rec, redis.call('HGET', rec, 'ov')), message)
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

local function take_next(worker, token, next, now)
  local card, reply = K.worker(worker), { 1 }
  local c = redis.call('HMGET', card, 'last', 'takes', 'alone')
  if not may_take_next(worker, next, c[3]) then return reply end
  local take, before = math.max(tonumber(c[1] or 0), next.floor) + 1, tonumber(c[2] or 0)
  local function accept(queue, lane, message)
    local root, id, generation = name_of(message)
    local f = root and redis.call('HMGET', K.step(root, id), 's', 'g', 'a', 'ov', 'pr', 'k', 'hg', 'hd', 'nm', 'tn') or {}
    if root and (f[1] ~= 'q' or f[2] ~= generation) then return false end
    if f[6] ~= 's' or f[8] or not string.find(next.names, '\n' .. f[9] .. '\n', 1, true) then
      put_back(queue, lane, f[10] or '', message)
      if next.heard then ring(queue) end
      return true
    end
    local flags, stopped = claim(worker, next.label, take, queue, lane, message, now, f)
    -- One of a run that stands still was set aside: whoever takes next sees to those behind it.
    if not flags then return stopped end
    reply = next_reply(take, queue, flags, message)
    redis.call('HSET', card, 'last', take, 'takes', before + 1, 'on:' .. next.seat, token .. '|' .. take)
    return true
  end
  -- Dry lanes make room for what was held back.
  if serve(next.queues, 1, before, next.low, now, accept) == 0 and refill(20, now) > 0 then
    serve(next.queues, 1, before, next.low, now, accept)
  end
  return reply
end
