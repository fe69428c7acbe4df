-- Starting a hedge: the second step's record and message, made of those of the first, which runs.
-- include: common tree accounts backlog cancel hedging

-- A hedge for which no place is free is looked at again after so long at least.
local HEDGE_LOOK_MS = 500

-- Whether a place is free in another worker of the queue, and then the node to be avoided: where one elsewhere is free.
local function free_elsewhere(worker, queue, now)
  if redis.call('HEXISTS', K.drained(), 'pool|' .. queue) == 1 then return false end
  local function node_of(id)
    local details = cjson.decode(redis.call('HGET', K.worker(id), 'details') or '{}')
    return details.node or details.host
  end
  local own, found = node_of(worker), false
  for _, other in ipairs(redis.call('ZRANGEBYSCORE', K.workers(), ms_text(now), '+inf')) do
    local f = other ~= worker and redis.call('HMGET', K.worker(other), 'queues', 'slots', 'report') or {}
    local serves = f[1] and string.find(f[1], '"' .. queue .. '"', 1, true)
    if serves and not (f[3] and string.find(f[3], '"why":', 1, true))
      and redis.call('HLEN', K.held(other)) < tonumber(f[2] or 1) then
      found = true
      if not own or node_of(other) ~= own then return true, own end
    end
  end
  return found
end

-- A name of the second step's own, the same whenever it is made, in the form that ids of tasks have.
local function hedge_id(root, id)
  local hex = redis.sha1hex(root .. '|' .. id .. '|hedge')
  return string.sub(hex, 1, 8) .. '-' .. string.sub(hex, 9, 12) .. '-5' .. string.sub(hex, 14, 16) .. '-a'
    .. string.sub(hex, 18, 20) .. '-' .. string.sub(hex, 21, 32)
end

local function replaced(text, before, after)
  local first, last = string.find(text, before, 1, true)
  if not first then return nil end
  return string.sub(text, 1, first - 1) .. after .. string.sub(text, last + 1)
end

-- The first one's message under the second one's id; nil for one that was not written by agentq.
local function hedge_message(rest, id, twin)
  local own, other = cjson.encode(id), cjson.encode(twin)
  local text = replaced(rest, '"id":' .. own, '"id":' .. other)
  text = text and replaced(text, '"agentq":{', '"agentq":{"hd":' .. own .. ',')
  return text and (replaced(text, '"correlation_id":' .. own, '"correlation_id":' .. other) or text)
end

-- Its budgets count it like any other step; without room on them there is none.
local function count_hedge(root, message, now)
  local ours, listed = cjson.decode(message).headers.agentq, {}
  for _, account in ipairs(ours.bg or {}) do
    if account.k ~= 'self' then listed[#listed + 1] = account end
  end
  local accounts = opened_accounts(root, listed, now)
  if first_short(accounts, { steps = 1, depth = ours.dp }, now) then return false end
  for _, account in ipairs(accounts) do redis.call('HINCRBY', account.key, 'n_steps', 1) end
  if #accounts == 0 then redis.call('HINCRBY', K.tree(root), 'n_steps', 1) end
  return true
end

-- A step is slow: another one like it is queued, once, where a worker is free for it. Where steps wait for a worker, all are
-- slow, and one more of each would make them slower.
local function start_hedge(root, id, generation, now)
  local rec = K.step(root, id)
  local f = redis.call('HMGET', rec, 's', 'g', 'w', 't', 'tw', 'q', 'l', 'b', 'ud', 'k')
  if f[1] ~= 'h' or f[2] ~= generation or f[5] or f[9] or f[10] ~= 's' or is_cancelled(root, id, rec) then return end
  local entry = redis.call('HGET', K.held(f[3]), f[4])
  if not entry then return end
  local waiting = 0
  for _, lane in ipairs({ 0, 3, 6, 9 }) do waiting = waiting + count_waiting(f[6], lane) end
  local free, node = free_elsewhere(f[3], f[6], now)
  if waiting > 0 or not free then
    local later = now + math.max(HEDGE_LOOK_MS, (now - tonumber(f[8])) / 2)
    redis.call('ZADD', K.hedges(), ms_text(later), root .. '|' .. id .. '|' .. generation)
    return
  end
  local _, _, message = parts_of(entry)
  local twin = hedge_id(root, id)
  local made, second = K.step(root, twin), hedge_message(rest_of(message), id, twin)
  if not second or not count_hedge(root, message, now) then return end
  local fields = { 'g', 1, 'q', f[6], 'l', f[7], 'c', ms_text(now), 'tw', id, 'hd', id }
  if node then fields[#fields + 1], fields[#fields + 2] = 'an', node end
  local names = { 'nm', 'k', 'pr', 'ak', 'jr', 'jn', 'ji', 'tn', 'nd', 'rs', 'cd' }
  for i, value in ipairs(redis.call('HMGET', rec, unpack(names))) do
    if value then fields[#fields + 1], fields[#fields + 2] = names[i], value end
  end
  redis.call('HSET', made, unpack(fields))
  redis.call('HSET', rec, 'tw', twin)
  enter_tree(root)
  enlist(root, 's', twin)
  note_step(root, rec, id, 'hedged', now, { hedge = twin })
  place(root, twin, made, f[6], f[7], 1, second, nil, now, nil, redis.call('HGET', rec, 'tn') or '')
  -- For two: the one that holds the first may hear it, and leaves it to another.
  ring(f[6])
end
