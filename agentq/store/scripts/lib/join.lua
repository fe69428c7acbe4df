-- Joins: one bit a member, the count moves only by a first arrival (invariant 4).

local function make_join(j)
  local key = K.join(j.root, j.id)
  if redis.call('EXISTS', key) == 1 then return end
  redis.call('HSET', key, 'size', j.size, 'n', 0, 'ok', 0, 'sent', 0)
  if j.need then redis.call('HSET', key, 'need', j.need) end
  if j.ids then redis.call('HSET', key, 'ids', j.ids) end
  if j.pr then redis.call('HSET', key, 'pr', j.pr) end
  if j.body then redis.call('HSET', key, 'bo', cjson.encode(j.body), 'bm', j.message) end
  enlist(j.root, 'j', j.id)
end

local function arrive(root, id, index, succeeded, now)
  local key = K.join(root, id)
  if redis.call('EXISTS', key) == 0 then return end
  -- A fan-out numbers its members; canvas, whose branches nest, is told apart by the branch's task id.
  local place = tonumber(index)
  local bits = K.bits(root, id)
  if place then
    if redis.call('SETBIT', bits, place, 1) == 1 then return end
  elseif redis.call('SADD', bits, index) == 0 then
    return
  end
  local n = redis.call('HINCRBY', key, 'n', 1)
  local ok = redis.call('HINCRBY', key, 'ok', succeeded and 1 or 0)
  local f = redis.call('HMGET', key, 'size', 'need', 'sent', 'pr', 'bo', 'bm')
  if f[3] ~= '0' then return end
  if n < tonumber(f[1]) and not (f[2] and ok >= tonumber(f[2])) then return end
  redis.call('HSET', key, 'sent', 1)
  redis.call('HDEL', key, 'bm')
  if f[4] then
    tell(root, f[4], cjson.encode({ k = 'joined', id = id }), now)
  else
    offer_one(cjson.decode(f[5]), f[6], now)
    -- The pending body has kept the tree alive in place of the step that it has now become.
    leave_tree(root)
  end
end
