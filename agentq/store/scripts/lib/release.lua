-- Giving a held entry back to its lane.

-- The message with the mark by which Celery tells a second delivery. As text, since decoding would turn empty lists into
-- objects; a quoted name behind a backslash, inside some argument's text, does not match.
local function redelivered(message)
  if string.find(message, '"redelivered": ?true') then return message end
  for _, name in ipairs({ 'headers', 'delivery_info' }) do
    message = string.gsub(message, '("' .. name .. '": ?{)("?)', function(opening, following)
      return opening .. '"redelivered": true' .. (following == '' and '' or ', ') .. following
    end, 1)
  end
  return message
end

-- counted: the attempt died; else its owner hands it back and it does not count as a start. An attempt that was killed
-- for its hard limit has started and did not die by itself: its next taker ends it.
local function give_back(worker, take, counted, now)
  local held = K.held(worker)
  local entry = redis.call('HGET', held, take)
  if not entry then return 0 end
  redis.call('HDEL', held, take)
  local queue, lane, message = parts_of(entry)
  local root, id = name_of(message)
  if not root then
    place_plain(queue, lane, redelivered(message), now, true)
    return 1
  end
  local rec = K.step(root, id)
  local f = redis.call('HMGET', rec, 's', 'w', 't', 'g', 'ov')
  if f[1] ~= 'h' or f[2] ~= worker or f[3] ~= tostring(take) then return 0 end
  local generation = tonumber(f[4]) + 1
  redis.call('HSET', rec, 'g', generation)
  if not f[5] then redis.call('HINCRBY', rec, counted and 'd' or 'a', counted and 1 or -1) end
  place(root, id, rec, queue, lane, generation, redelivered(rest_of(message)), nil, now, true)
  note_step(root, rec, id, f[5] and 'overdue' or counted and 'lost' or 'released', now)
  return 1
end
