-- What waits in a lane, and whose turn it is. Messages without a tenant stand in kombu's own list, as stock Celery has
-- them; those of a tenant in a line of its own, and the lane's turns name whose line is not empty, who is next as the
-- last. The tenantless are one more in the turns, under the name '', whether or not any wait: stock producers fill
-- their list without a word.
local WAY = SPLIT and 'split' or 'fused'

local function line_of(way, queue, lane, tenant)
  if tenant ~= '' then return K.line(way, lane, redis.sha1hex(tenant), queue) end
  return way == 'fused' and K.lane(queue, lane) or K.line(way, lane, '', queue)
end

-- An entry of the turns: how many of a tenant's went since its turn began, and its name.
local function turn_parts(entry)
  local served, tenant = string.match(entry, '^(%d+)|(.*)$')
  return tonumber(served), tenant
end

-- A line has become empty: its tenant is no longer in the turns, and turns without any tenant are none.
local function leave_turns(way, queue, lane, entry)
  local turns = K.turns(way, lane, queue)
  redis.call('LREM', turns, -1, entry)
  if redis.call('LLEN', turns) > 1 then return end
  redis.call('DEL', turns)
  redis.call('SREM', K.shared(), way .. '|' .. lane .. '|' .. queue)
end

local function count_line(queue, lane, by)
  local field = lane .. '|' .. queue
  if redis.call('HINCRBY', K.queued(), field, by) <= 0 then redis.call('HDEL', K.queued(), field) end
end

-- Puts an entry into its lane: at the end, or in front as what is to be taken next.
local function push_line(queue, lane, tenant, entry, front)
  local at = front and 'RPUSH' or 'LPUSH'
  local length = redis.call(at, line_of(WAY, queue, lane, tenant), entry)
  if tenant == '' then return end
  if not SPLIT then count_line(queue, lane, 1) end
  if length > 1 then return end
  local turns = K.turns(WAY, lane, queue)
  if redis.call(at, turns, '0|' .. tenant) == 1 then
    redis.call('RPUSH', turns, '0|')
    redis.call('SADD', K.shared(), WAY .. '|' .. lane .. '|' .. queue)
  end
end

-- Puts an entry that its turn has given back in front, and has it be its tenant's turn again: who looks and does not take,
-- each time, would else pass one tenant over for ever.
local function put_back(queue, lane, tenant, entry)
  push_line(queue, lane, tenant, entry, true)
  local turns = K.turns(WAY, lane, queue)
  local passed = redis.call('LINDEX', turns, 0)
  if not passed or redis.call('LLEN', turns) < 2 then return end
  local _, name = turn_parts(passed)
  if name == tenant then redis.call('RPUSH', turns, redis.call('LPOP', turns)) end
end

-- The tenants whose lines are not empty, who is next as the first; '' is not among them.
local function tenants_in(way, queue, lane)
  local found = {}
  local entries = redis.call('LRANGE', K.turns(way, lane, queue), 0, -1)
  for i = #entries, 1, -1 do
    local _, tenant = turn_parts(entries[i])
    if tenant ~= '' then found[#found + 1] = tenant end
  end
  return found
end

-- An entry has left a tenant's line other than by its turn.
local function left_line(way, queue, lane, tenant)
  if tenant == '' then return end
  if way == 'fused' then count_line(queue, lane, -1) end
  if redis.call('EXISTS', line_of(way, queue, lane, tenant)) == 1 then return end
  for _, entry in ipairs(redis.call('LRANGE', K.turns(way, lane, queue), 0, -1)) do
    local _, name = turn_parts(entry)
    if name == tenant then return leave_turns(way, queue, lane, entry) end
  end
end

-- The oldest entry of one tenant's line, out of its turn; false for none.
local function pop_of(way, queue, lane, tenant)
  local entry = redis.call('RPOP', line_of(way, queue, lane, tenant))
  if entry then left_line(way, queue, lane, tenant) end
  return entry
end

-- Takes one entry out of a line, wherever it stands; whether it was there.
local function pull_line(way, queue, lane, tenant, entry)
  if redis.call('LREM', line_of(way, queue, lane, tenant), -1, entry) == 0 then return false end
  left_line(way, queue, lane, tenant)
  return true
end

-- What comes next in a lane, as nearly as one look tells; false for an empty lane.
local function peek_line(way, queue, lane)
  local turn = redis.call('LINDEX', K.turns(way, lane, queue), -1)
  local _, tenant = turn_parts(turn or '0|')
  local entry = redis.call('LINDEX', line_of(way, queue, lane, tenant), -1)
  if entry or not turn then return entry end
  local other = tenants_in(way, queue, lane)[1]
  return other and redis.call('LINDEX', line_of(way, queue, lane, other), -1)
end

-- How many of a tenant's wait in a queue, in all its lanes.
local function count_tenant(queue, tenant)
  local n = 0
  for _, lane in ipairs({ 0, 3, 6, 9 }) do n = n + redis.call('LLEN', line_of(WAY, queue, lane, tenant)) end
  return n
end
