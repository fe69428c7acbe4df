-- Giving a held entry back to its lane.

-- counted: the attempt died; else its owner hands it back and it does not count as a start.
local function give_back(worker, take, counted, now)
  local held = K.held(worker)
  local entry = redis.call('HGET', held, take)
  if not entry then return 0 end
  redis.call('HDEL', held, take)
  local queue, lane, message = parts_of(entry)
  local root, id = name_of(message)
  if not root then
    redis.call('RPUSH', K.lane(queue, lane), message)
    ring(queue)
    return 1
  end
  local rec = K.step(root, id)
  local f = redis.call('HMGET', rec, 's', 'w', 't', 'g')
  if f[1] ~= 'h' or f[2] ~= worker or f[3] ~= tostring(take) then return 0 end
  local generation = tonumber(f[4]) + 1
  redis.call('HSET', rec, 'g', generation)
  redis.call('HINCRBY', rec, counted and 'd' or 'a', counted and 1 or -1)
  place(root, id, rec, queue, lane, generation, rest_of(message), nil, now, true)
  note_step(root, rec, id, counted and 'lost' or 'released', now)
  return 1
end
