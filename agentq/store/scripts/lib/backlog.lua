-- Back-pressure: what a queue has no room for. A start is refused; a member of a run is held back, as a delayed step
-- without a timer whose name stands in the backlog of its lane and tenant, and comes into its lane as places get free.
-- Nothing here is touched by queues without a bound.

-- In fused mode what waits in a tenant's line, or in split mode all that waits, is counted in `queued`.
local function count_waiting(queue, lane)
  local counted = tonumber(redis.call('HGET', K.queued(), lane .. '|' .. queue) or 0)
  if SPLIT then return counted end
  return counted + redis.call('LLEN', K.lane(queue, lane))
end

-- How many go before a newcomer: a flood of low ones must not keep an urgent one out.
local function count_ahead(queue, lane)
  local n = 0
  for _, each in ipairs({ 0, 3, 6, 9 }) do
    if each <= tonumber(lane) then n = n + count_waiting(queue, each) end
  end
  return n
end

-- How many more may wait; the second answer says which bound is nearest: 'pool' or 'tenant', and how many wait under it.
local function room_in(queue, lane, tenant, most, most_own)
  local room, which, waiting = nil, nil, nil
  if most then
    waiting = count_ahead(queue, lane)
    room, which = most - waiting, 'pool'
  end
  if most_own and tenant ~= '' then
    local own = count_tenant(queue, tenant)
    if not room or most_own - own < room then room, which, waiting = most_own - own, 'tenant', own end
  end
  return room, which, waiting
end

local function backlog_of(queue, lane, tenant)
  return K.backlog(lane, tenant == '' and '' or redis.sha1hex(tenant), queue)
end

local function backlog_field(queue, lane, tenant)
  return lane .. '|' .. #tenant .. '|' .. tenant .. queue
end

-- Queue, lane and tenant of a field of the index.
local function backlog_parts(field)
  local lane, length, rest = string.match(field, '^(%d+)|(%d+)|(.*)$')
  return string.sub(rest, length + 1), lane, string.sub(rest, 1, length)
end

-- Whether an offer has to wait for room: also behind those that wait for it already.
local function must_wait(o)
  if not (o.mx or o.mt) then return false end
  local tenant = o.tn or ''
  if redis.call('HEXISTS', K.backlogs(), backlog_field(o.q, o.l, tenant)) == 1 then return true end
  return room_in(o.q, o.l, tenant, o.mx, o.mt) <= 0
end

-- What the index has of a backlog: the bounds of pool and tenant, and when it last had its turn, or began.
local function bounds_text(mx, mt, turn)
  return (mx or '') .. '|' .. (mt or '') .. '|' .. turn
end

local function hold_back(o, rec, rest, now)
  local tenant = o.tn or ''
  redis.call('HSET', rec, 's', 'l')
  keep(o.root, o.id, rest)
  redis.call('RPUSH', backlog_of(o.q, o.l, tenant), o.root .. '|' .. o.id .. '|' .. o.g)
  local field = backlog_field(o.q, o.l, tenant)
  local turn = string.match(redis.call('HGET', K.backlogs(), field) or '', '(%d+)$') or ms_text(now)
  redis.call('HSET', K.backlogs(), field, bounds_text(o.mx, o.mt, turn))
  -- Once for all members that come together.
  CALL.told_of = CALL.told_of or {}
  local told_of = CALL.told_of
  if o.pr and not told_of[o.root .. '|' .. o.q] then
    told_of[o.root .. '|' .. o.q] = true
    note(o.root, cjson.encode({ e = 'held_back', r = o.pr, q = o.q, n = o.nm }), now)
  end
end

-- The next of a backlog comes into its lane; what was cancelled, or went on otherwise, is passed over. Whether one came.
local function let_in(queue, lane, tenant, now)
  local key = backlog_of(queue, lane, tenant)
  while true do
    local name = redis.call('LPOP', key)
    if not name then break end
    local root, id, generation = string.match(name, '^([^|]+)|([^|]+)|(%d+)$')
    local rec = K.step(root, id)
    local f = redis.call('HMGET', rec, 's', 'g', 'q', 'l')
    if f[1] == 'l' and f[2] == generation and redis.call('ZSCORE', K.due(), name) == false then
      place(root, id, rec, f[3], f[4], generation, take_kept(root, id), nil, now)
      note_step(root, rec, id, 'queued', now, { q = f[3] })
      return true
    end
  end
  redis.call('HDEL', K.backlogs(), backlog_field(queue, lane, tenant))
  return false
end

-- Somebody takes a step out who knows its name.
local function leave_backlog(name, rec, queue, lane)
  if redis.call('EXISTS', K.backlogs()) == 0 then return end
  local tenant = redis.call('HGET', rec, 'tn') or ''
  local key = backlog_of(queue, lane, tenant)
  if redis.call('LREM', key, 1, name) == 0 then return end
  if redis.call('EXISTS', key) == 0 then redis.call('HDEL', K.backlogs(), backlog_field(queue, lane, tenant)) end
end

-- So many backlogs are looked at in one go: each take would else read all of thousands of tenants.
local BACKLOGS_IN_VIEW = 100

-- All backlogs as field, bounds…; of more than may be looked at some of them, others each time.
local function backlogs_in_view()
  if redis.call('HLEN', K.backlogs()) <= BACKLOGS_IN_VIEW then return redis.call('HGETALL', K.backlogs()) end
  return redis.call('HRANDFIELD', K.backlogs(), BACKLOGS_IN_VIEW, 'WITHVALUES')
end

-- The backlogs in view in the order of their turns, and the latest turn: urgent lanes first, of one lane the tenant that has come in
-- least lately. Else, where one place gets free at a time, the first of the index would have it each time.
local function backlogs_in_turn(now)
  local all, found, latest = backlogs_in_view(), {}, now
  for i = 1, #all, 2 do
    local queue, lane, tenant = backlog_parts(all[i])
    local mx, mt, turn = string.match(all[i + 1], '^(%d*)|(%d*)|?(%d*)$')
    local b = { field = all[i], queue = queue, lane = lane, tenant = tenant, rank = tonumber(lane) }
    b.mx, b.mt, b.turn = tonumber(mx), tonumber(mt), tonumber(turn) or 0
    found[#found + 1] = b
    latest = math.max(latest, b.turn)
  end
  table.sort(found, function(a, b)
    if a.rank ~= b.rank then return a.rank < b.rank end
    return a.turn < b.turn
  end)
  return found, latest
end

-- Lets in what there is room for, at most `most`: lane by lane, and of one lane a tenant's after another's.
local function refill(most, now)
  if redis.call('EXISTS', K.backlogs()) == 0 then return 0 end
  local backlogs, latest = backlogs_in_turn(now)
  -- A pool that is full stays so here, and is not counted again for each of its tenants.
  local full = {}
  local function has_room(b)
    local place = b.lane .. '|' .. (b.mx or '') .. '|' .. b.queue
    if full[place] then return false end
    local room, which = room_in(b.queue, b.lane, b.tenant, b.mx, b.mt)
    full[place] = room ~= nil and room <= 0 and which == 'pool'
    return not room or room > 0
  end
  local n, came = 0, true
  while came and n < most do
    came = false
    for _, b in ipairs(backlogs) do
      if n < most and not b.over and has_room(b) then
        if let_in(b.queue, b.lane, b.tenant, now) then
          n, came, latest = n + 1, true, latest + 1
          redis.call('HSET', K.backlogs(), b.field, bounds_text(b.mx, b.mt, ms_text(latest)))
        else
          b.over = true
        end
      end
    end
  end
  return n
end
