-- Shared by all scripts: time, messages, lanes, history. Keys come from the table K that keys.py renders;
-- RETENTION_MS, EVENT_LIMIT and ARCHIVES (whether ended runs wait for an archive) are set by the runner.
-- include: kept lines

-- The server's clock in ms: the only clock that deadlines and journals know.
local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- cjson writes large integers as floats (1.79e+12); times are put into JSON as text.
local function ms_text(ms)
  return string.format('%.0f', ms)
end

-- A JSON object's text with the server's time put in front of its other fields.
local function stamped(entry, now)
  if entry == '{}' then return '{"t":' .. ms_text(now) .. '}' end
  return '{"t":' .. ms_text(now) .. ',' .. string.sub(entry, 2)
end

-- A durable message begins with its own name, so that it is found without decoding the rest.
local function message_of(root, id, generation, rest)
  return '{"agentq":"' .. root .. '|' .. id .. '|' .. generation .. '",' .. string.sub(rest, 2)
end

local function name_of(message)
  return string.match(message, '^{"agentq":"([^"|]*)|([^"|]*)|(%d+)",')
end

-- The message without its name: what message_of takes.
local function rest_of(message)
  local _, last = string.find(message, '^{"agentq":"[^"]*",')
  if last == nil then return message end
  return '{' .. string.sub(message, last + 1)
end

-- What stands in held under a take number. The queue's name comes with its length: it is users' text, newlines too.
local function entry_of(queue, lane, message)
  return lane .. '\n' .. #queue .. '\n' .. queue .. '\n' .. message
end

-- Queue, lane and message of an entry.
local function parts_of(entry)
  local lane, length, rest = string.match(entry, '^(%d+)\n(%d+)\n(.*)$')
  return string.sub(rest, 1, length), lane, string.sub(rest, length + 2)
end

-- By what it is told among short ones: a step by its name, an agent with its version behind it, which not every worker
-- serves; nothing else.
local function name_among(kind, name, version)
  if kind == 's' then return name end
  return kind == 'a' and name .. '\t' .. (version or '')
end

-- Has the slot hear of a step of this name that waits for a moment for such ones, if there is one; of one step, and then
-- no more: it looks once when it has heard. What it does not take then it rings for.
local function hail(queue, name)
  local text = redis.call('GET', K.near(queue))
  local near = text and cjson.decode(text)
  if not near or not string.find(near.names, '\n' .. name .. '\n', 1, true) then return false end
  for _, each in ipairs(near.queues) do redis.call('DEL', K.near(each)) end
  local bell = K.seat(near.worker, near.seat)
  redis.call('LPUSH', bell, 1)
  redis.call('PEXPIRE', bell, 1000)
  return true
end

-- Rung as often as the bell is long, it is full: nobody can hear it while a script runs. name: of the step that has come,
-- where any slot may take it.
local function ring(queue, name)
  CALL.rung = CALL.rung or {}
  local rung = CALL.rung
  rung[queue] = (rung[queue] or 0) + 1
  if rung[queue] > 32 then return end
  if name and hail(queue, name) then return end
  local bell = K.bell(queue)
  redis.call('LPUSH', bell, 1)
  redis.call('LTRIM', bell, 0, 31)
end

-- One line of a tree's history; fields is the text of a JSON object. Kept to the last EVENT_LIMIT lines.
local function note(root, fields, now)
  local key = K.events(root)
  local line = stamped(fields, now)
  local length = redis.call('RPUSH', key, line)
  if length > EVENT_LIMIT then
    local cut = math.floor(EVENT_LIMIT / 10)
    redis.call('LTRIM', key, cut, -1)
    redis.call('HINCRBY', K.tree(root), 'cut', cut)
  end
  redis.call('PUBLISH', key, line)
end

-- History of a step that belongs to an agent's run; canvas alone keeps none. A line without r is of the root run, and
-- one without s of that run's own record: most trees are one run, and its id is a third of a line.
local function note_step(root, rec, id, kind, now, more)
  local f = redis.call('HMGET', rec, 'pr', 'nm', 'k', 'wl', 'a')
  if f[3] == 'i' or not f[1] and f[3] ~= 'a' then return end
  local event = { e = kind, n = f[2] }
  if id ~= root then event.s = id end
  if (f[1] or id) ~= root then event.r = f[1] or id end
  if f[4] then event.w = f[4] end
  if f[5] then event.a = tonumber(f[5]) end
  if more then for name, value in pairs(more) do event[name] = value end end
  note(root, cjson.encode(event), now)
end

-- Split mode (SPLIT is set by the runner): what waits for a worker stands in unsent with the time at which the broker is
-- to hear of it, until its claim. The broker's message is a hint; the one whom the nameless bell wakes sends it.
local function list_unsent(name, queue, lane, now)
  if redis.call('ZADD', K.unsent(), ms_text(now), name) == 1 then count_line(queue, lane, 1) end
  ring('')
end

local function unlist(name, queue, lane)
  if redis.call('ZREM', K.unsent(), name) == 1 then count_line(queue, lane, -1) end
end

-- Queues a plain message, one without a record. In split mode it waits in the outbox until the broker has confirmed it.
local function place_plain(queue, lane, message, now, front)
  if SPLIT then
    local n = redis.call('HINCRBY', K.ticks(), 'outbox', 1)
    redis.call('HSET', K.outbox(), n, entry_of(queue, lane, message))
    list_unsent('|' .. n .. '|0', queue, lane, now)
    return
  end
  redis.call(front and 'RPUSH' or 'LPUSH', K.lane(queue, lane), message)
  ring(queue)
end

-- Into its lane, or into the timers when it is not due yet; then its message is kept meanwhile, as it is
-- in split mode, where the lane holds its name. tenant: of a step that is recorded just now, '' for none; of any other it
-- stands in the record, and so does from now on since when it waits again. name: as of ring.
local function place(root, id, rec, queue, lane, generation, rest, due, now, front, tenant, name)
  if due and due > now then
    redis.call('HSET', rec, 's', 'l')
    keep(root, id, rest)
    redis.call('ZADD', K.due(), due, root .. '|' .. id .. '|' .. generation)
    return
  end
  if tenant then
    redis.call('HSET', rec, 's', 'q')
  else
    redis.call('HSET', rec, 's', 'q', 'sq', ms_text(now))
    tenant = redis.call('HGET', rec, 'tn') or ''
  end
  if SPLIT then
    local name = root .. '|' .. id .. '|' .. generation
    redis.call('SET', K.message(root, id), rest)
    push_line(queue, lane, tenant, name, front)
    list_unsent(name, queue, lane, now)
    return
  end
  push_line(queue, lane, tenant, message_of(root, id, generation, rest), front)
  ring(queue, name)
end
