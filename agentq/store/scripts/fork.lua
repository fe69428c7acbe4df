-- fork: a new run that begins with a part of another one's journal, and with the checkpoints that this part names.
-- include: common tree offer
-- ARGV: 'copy', root, place in the journal, number of lines, lines…, place among the members,
--         number of steps; per step: id, number of its record's parts, field, value…, Celery's meta or ''
--         number of joins; per join: JSON {id, size, pr, arrived: places of the members that have succeeded}
--       'start', JSON header {o: offer, lines, members, from, at?, used: counters, signals: ids, payloads: names, retried?: root of the run
--         that is retried,
--         key?: digest of the start key that the other run stands under}, message
-- Reply: copy: 1; 0 what was copied before has ended
--        start: {1, run}; {0, run} it was retried before, as that run; {-1} what was copied has ended
-- Keeps: nobody knows of the new run before all of it stands there, and what was copied for one that is never started has
--   an end (1, 10); a run is retried once, however often it is asked for: the new run's id is made of its own, and it says
--   so itself for as long as it stands.
local HOLD_MS = 3600000
local now = now_ms()

local at = 1
local function following() at = at + 1 return ARGV[at] end

-- Appends to a list at a place; a repeat finds it longer, and appends nothing.
local function append_at(key, place, values)
  local length = redis.call('LLEN', key)
  if length == place then
    for _, value in ipairs(values) do redis.call('RPUSH', key, value) end
  end
  redis.call('PEXPIRE', key, HOLD_MS)
  return length >= place
end

local function copy_step(root, id)
  local rec, parts = K.step(root, id), {}
  for i = 1, tonumber(following()) do parts[i] = following() end
  local meta = following()
  if #parts > 0 then
    redis.call('HSET', rec, unpack(parts))
    redis.call('PEXPIRE', rec, HOLD_MS)
  end
  if meta ~= '' then redis.call('SET', K.result(id), meta, 'PX', HOLD_MS) end
end

local function copy_join(root, j)
  local key, bits = K.join(root, j.id), K.bits(root, j.id)
  local n = 0
  for _, place in ipairs(j.arrived) do
    redis.call('SETBIT', bits, place, 1)
    n = n + 1
  end
  redis.call('HSET', key, 'size', j.size, 'n', n, 'ok', n, 'sent', 0, 'pr', j.pr, 'won', table.concat(j.arrived, ','))
  redis.call('PEXPIRE', key, HOLD_MS)
  redis.call('PEXPIRE', bits, HOLD_MS)
end

if ARGV[1] == 'copy' then
  local root = following()
  -- Somebody else has started the same retry meanwhile: what it has copied is the same, and lives.
  if redis.call('EXISTS', K.step(root, root)) == 1 then return 1 end
  local place, lines = tonumber(following()), {}
  for i = 1, tonumber(following()) do lines[i] = following() end
  local whole = append_at(K.log(root, root), place, lines)
  place = tonumber(following())
  local names = {}
  for _ = 1, tonumber(following()) do
    local id = following()
    names[#names + 1] = 's|' .. id
    copy_step(root, id)
  end
  for _ = 1, tonumber(following()) do
    local j = cjson.decode(following())
    names[#names + 1] = 'j|' .. j.id
    copy_join(root, j)
  end
  return whole and append_at(K.members(root), place, names) and 1 or 0
end

local h, message = cjson.decode(following()), following()
local root = h.o.id
if redis.call('EXISTS', K.step(root, root)) == 1 then return { 1, root } end
local retried = h.retried and K.step(h.retried, h.from)
if retried and redis.call('HEXISTS', retried, 'rt') == 1 then return { 0, root } end
local log = K.log(root, root)
if redis.call('LLEN', log) ~= h.lines or redis.call('LLEN', K.members(root)) ~= h.members then return { -1 } end

-- The key of the run that is retried stands for the one that goes on.
local origin, digest = standing_start(h.key or '')
if h.key and origin == h.from then
  redis.call('SET', K.start(h.key), root .. '|' .. digest)
  h.o.sd = h.key
end
offer_one(h.o, message, now)
-- The start that every run's journal is given: this one has its own.
redis.call('RPOP', log)
for name, amount in pairs(h.used) do redis.call('HINCRBY', K.tree(root), name, amount) end
for _, name in ipairs(h.payloads) do adopt(root, name) end
for _, id in ipairs(h.signals) do redis.call('HSET', K.signals(root, root), id, '0 fork') end
if retried and redis.call('EXISTS', retried) == 1 then redis.call('HSET', retried, 'rt', 1) end
revive_tree(root)
note(root, cjson.encode({ e = 'forked', from = h.from, at = h.at }), now)
return { 1, root }
