-- Giving a held entry back to its lane.
-- include: gates

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

-- company: how many ran when the attempt died, itself included; nil when its owner hands it back, which does not count
-- as a start. An attempt that was killed for its hard limit has started and did not die by itself: its next taker ends
-- it. Returns 0 when it was not held, 1 given back, 2 condemned.
local function give_back(worker, take, company, now)
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
  local f = redis.call('HMGET', rec, 's', 'w', 't', 'g', 'ov', 'dl', 'gd')
  if f[1] ~= 'h' or f[2] ~= worker or f[3] ~= tostring(take) then return 0 end
  local generation, rest = tonumber(f[4]) + 1, redelivered(rest_of(message))
  redis.call('HSET', rec, 'g', generation)
  if f[7] then
    -- What was killed for its hard limit has failed; of what died with its worker nobody knows.
    redis.call('HDEL', rec, 'gd')
    settle_guards(root, id, f[7], { lost = true, ok = f[5] == '1' and 0 or nil }, now)
  end
  if f[6] then
    -- Who was dropping the letter has died before the step's end was written: it stands as before.
    redis.call('HSET', rec, 's', 'x')
    return 1
  end
  if f[5] == '1' then
    place(root, id, rec, queue, lane, generation, rest, nil, now, true)
    note_step(root, rec, id, 'overdue', now)
    return 1
  elseif not company then
    redis.call('HINCRBY', rec, 'a', -1)
  elseif blame(rec, company) then
    note_step(root, rec, id, 'lost', now)
    local words = 'its attempts died ' .. DEATH_LIMIT .. ' times in a row with nothing else beside them'
    condemn_step(root, id, rec, queue, lane, message_of(root, id, generation, rest), 'poison', words, now)
    return 2
  end
  place_again(root, id, rec, queue, lane, generation, rest, now, true)
  note_step(root, rec, id, company and 'lost' or 'released', now)
  if company then tell_loss('lost', root, id, queue, nil, now) end
  return 1
end
