-- reroute: queued steps go to another queue, or are no longer noted as unschedulable where they are.
-- include: common
-- ARGV: queue, how many of each line are looked through, behind how many of its oldest, then per step five: name root|step|generation, lane, tenant,
--   new queue ('' stays, and is only unmarked; its name needs no generation), why
-- Reply: how many have moved
-- Keeps: no instant exists at which a step is in no list (1); a step that was taken meanwhile is left alone (3).
local queue, most, after = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local now, moved = now_ms(), 0

local function unmark(root, id, rec)
  redis.call('HDEL', rec, 'un')
  redis.call('ZREM', K.unserved(), root .. '|' .. id)
end

-- A retry goes to where the message says that it came from.
local function addressed(rest, to)
  local before = '"routing_key":' .. cjson.encode(queue)
  local first, last = string.find(rest, before, 1, true)
  if not first then return rest end
  return string.sub(rest, 1, first - 1) .. '"routing_key":' .. cjson.encode(to) .. string.sub(rest, last + 1)
end

local function why_on(rec, why)
  local card = redis.call('HGET', rec, 'cd')
  local said = card and cjson.decode(card) or {}
  said.why = why
  redis.call('HSET', rec, 'cd', cjson.encode(said))
end

-- The entry of a step in a line; nil where it stands elsewhere by now.
local function entry_in(line, name)
  if SPLIT then return name end
  local start = '{"agentq":"' .. name .. '",'
  for _, entry in ipairs(redis.call('LRANGE', line, -after - most, -after - 1)) do
    if string.sub(entry, 1, #start) == start then return entry end
  end
end

local function move(name, lane, tenant, to, why)
  local root, id, generation = string.match(name, '^([^|]+)|([^|]+)|(%d*)$')
  local rec = K.step(root, id)
  local f = redis.call('HMGET', rec, 's', 'g', 'q', 'sq', 'c')
  if f[1] ~= 'q' or f[3] ~= queue then return end
  if to == '' then return unmark(root, id, rec) end
  if f[2] ~= generation then return end
  unmark(root, id, rec)
  local entry = entry_in(line_of(WAY, queue, lane, tenant), name)
  if not entry or not pull_line(WAY, queue, lane, tenant, entry) then return end
  local rest
  if SPLIT then
    unlist(name, queue, lane)
    rest = take_kept(root, id)
    redis.call('HDEL', rec, 'u')
  else
    rest = rest_of(entry)
  end
  redis.call('HSET', rec, 'q', to)
  why_on(rec, why)
  place(root, id, rec, to, lane, generation, addressed(rest, to), nil, now)
  -- It has waited all the while.
  redis.call('HSET', rec, 'sq', f[4] or f[5] or ms_text(now))
  note_step(root, rec, id, 'rerouted', now, { q = to, from = queue })
  moved = moved + 1
end

for i = 4, #ARGV, 5 do move(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]) end
return moved
