-- Joins: one bit a member, the count moves only by a first arrival (invariant 4).

-- A body keeps the tree of its join alive until it is done, since it reads there where its results lie.
local function body_of(root, body, message, now)
  offer_one(body, message, now)
  local rec = K.step(body.root, body.id)
  local f = redis.call('HMGET', rec, 's', 'tr')
  if body.root == root or not f[1] or f[1] == 'd' then
    leave_tree(root)
    return
  end
  redis.call('HSET', rec, 'tr', root)
  if f[2] then leave_tree(f[2]) end
end

local function release_join(root, id, now)
  local key = K.join(root, id)
  local f = redis.call('HMGET', key, 'pr', 'bo', 'bm', 'won', 'need', 'ok', 'n', 'size', 'u')
  redis.call('HSET', key, 'sent', 1)
  redis.call('HDEL', key, 'bm')
  if f[1] and f[5] and f[6] == f[5] then
    -- Who the winners are is said once and for all: others may succeed before the next replay looks.
    tell(root, f[1], '{"k":"joined","id":' .. cjson.encode(id) .. (f[9] and ',"u":' .. f[9] or '') .. ',"at":[' .. f[4] .. ']}',
      now)
    if f[7] ~= f[8] then call_off(root, id, 'enough others have succeeded', now) end
  elseif f[1] then
    tell(root, f[1], '{"k":"joined","id":' .. cjson.encode(id) .. (f[9] and ',"u":' .. f[9] or '') .. '}', now)
  else
    body_of(root, cjson.decode(f[2]), f[3], now)
  end
end

-- A join that has sent its body and comes again with another one: a frozen chord that is applied a second time.
local function is_another(key, j)
  local f = redis.call('HMGET', key, 'sent', 'bo')
  return f[1] == '1' and f[2] and j.body and cjson.decode(f[2]).id ~= j.body.id
end

-- A fork's join is laid down with the members that have succeeded; how many of them are enough is said when the fork
-- asks for it again.
local function complete_copy(key, j, now)
  local f = redis.call('HMGET', key, 'need', 'sent', 'ok', 'won')
  if not j.need or f[1] or f[2] == '1' then return end
  redis.call('HSET', key, 'need', j.need)
  if tonumber(f[3]) < j.need then return end
  local first = {}
  for place in string.gmatch(f[4], '%d+') do
    if #first < j.need then first[#first + 1] = place end
  end
  redis.call('HSET', key, 'ok', j.need, 'won', table.concat(first, ','))
  release_join(j.root, j.id, now)
end

-- Opens a join if it is absent; one without members releases at once. A body that waits keeps the tree alive.
local function open_join(j, message, now)
  local key = K.join(j.root, j.id)
  if redis.call('EXISTS', key) == 1 then
    if not is_another(key, j) then return complete_copy(key, j, now) end
    redis.call('DEL', key, K.bits(j.root, j.id))
  end
  redis.call('HSET', key, 'size', j.size, 'n', 0, 'ok', 0, 'sent', 0)
  if j.need then redis.call('HSET', key, 'need', j.need) end
  if j.ids then redis.call('HSET', key, 'ids', j.ids) end
  if j.pr then
    redis.call('HSET', key, 'pr', j.pr)
  else
    enter_tree(j.root)
    redis.call('HSET', key, 'bo', cjson.encode(j.body), 'bm', message)
    if j.body.pl then adopt(j.body.root, j.body.pl) end
  end
  enlist(j.root, 'j', j.id)
  if j.size == 0 then release_join(j.root, j.id, now) end
end

local function arrive(root, id, index, succeeded, now)
  local key = K.join(root, id)
  local f = redis.call('HMGET', key, 'size', 'need', 'sent')
  if not f[1] then return end
  local size = tonumber(f[1])
  -- A fan-out numbers its members; canvas, whose branches nest, is told apart by the branch's task id.
  local place = tonumber(index)
  local bits = K.bits(root, id)
  if place then
    if place < 0 or place >= size or redis.call('SETBIT', bits, place, 1) == 1 then return end
  elseif redis.call('SADD', bits, index) == 0 then
    return
  end
  local n = redis.call('HINCRBY', key, 'n', 1)
  local ok = redis.call('HINCRBY', key, 'ok', succeeded and 1 or 0)
  if f[3] ~= '0' then return end
  if f[2] and succeeded and place then
    local won = redis.call('HGET', key, 'won')
    redis.call('HSET', key, 'won', won and won .. ',' .. place or place)
  end
  if n < size and not (f[2] and ok >= tonumber(f[2])) then return end
  release_join(root, id, now)
end
