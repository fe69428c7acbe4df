-- survey: how the queues stand: who serves them, what waits, and how long an attempt lasts there.
-- include: common backlog pace
-- ARGV: ms for which what somebody else has found is good enough, queues…
-- Reply: {server's time in ms of the look, JSON of each queue in the order asked}: w workers that take, x that do not,
--   s slots and b busy ones of those that take, n how many wait in each lane, o ms for which the oldest waits (-1: none),
--   v mean ms of an attempt (-1: none measured), r attempts a second, h held back by lane
-- Keeps: however many processes ask, the server looks once per that time; nothing is decided by it that custody needs.
local now, key = now_ms(), K.survey()
local LANES = { 0, 3, 6, 9 }

local function known()
  local at = redis.call('HGET', key, 'at')
  if not at or now - tonumber(at) >= tonumber(ARGV[1]) or tonumber(at) > now then return nil end
  local found = { at }
  for i = 2, #ARGV do
    local text = redis.call('HGET', key, 'q|' .. ARGV[i])
    if not text then return nil end
    found[#found + 1] = text
  end
  return found
end

local found = known()
if found then return found end

local stands = {}
for i = 2, #ARGV do stands[ARGV[i]] = { w = 0, x = 0, s = 0, b = 0 } end
-- What others have asked for lately is looked at as well, so that they need not look by themselves.
for _, name in ipairs(redis.call('HKEYS', key)) do
  local queue = string.match(name, '^q|(.*)$')
  if queue and not stands[queue] then stands[queue] = { w = 0, x = 0, s = 0, b = 0 } end
end

for _, worker in ipairs(redis.call('ZRANGEBYSCORE', K.workers(), ms_text(now), '+inf')) do
  local f = redis.call('HMGET', K.worker(worker), 'queues', 'slots', 'report')
  if f[1] then
    local report = f[3] and cjson.decode(f[3]) or {}
    local held = redis.call('HLEN', K.held(worker))
    for _, queue in ipairs(cjson.decode(f[1])) do
      local stand = stands[queue]
      if stand and (report.why or redis.call('HEXISTS', K.drained(), 'pool|' .. queue) == 1) then
        stand.x = stand.x + 1
      elseif stand then
        stand.w, stand.s = stand.w + 1, stand.s + tonumber(f[2] or 1)
        stand.b = stand.b + math.min(held, tonumber(f[2] or 1))
      end
    end
  end
end

-- Since when the one that is next in a lane waits; nil when that is not known.
local function waits_since(queue, lane)
  local entry = peek_line(WAY, queue, lane) or ''
  local root, id = name_of(entry)
  if SPLIT then root, id = string.match(entry, '^([^|]+)|([^|]+)|') end
  if not root then return nil end
  local f = redis.call('HMGET', K.step(root, id), 'sq', 'c')
  return tonumber(f[1] or f[2] or now)
end

local held_back = {}
for _, field in ipairs(redis.call('HKEYS', K.backlogs())) do
  local queue, lane, tenant = backlog_parts(field)
  local name = lane .. '|' .. queue
  held_back[name] = (held_back[name] or 0) + redis.call('LLEN', backlog_of(queue, lane, tenant))
end

found = { ms_text(now) }
redis.call('DEL', key)
for queue, stand in pairs(stands) do
  local oldest = nil
  stand.n, stand.h = {}, {}
  for i, lane in ipairs(LANES) do
    stand.n[i] = count_waiting(queue, lane)
    stand.h[i] = held_back[lane .. '|' .. queue] or 0
    local since = stand.n[i] > 0 and waits_since(queue, lane)
    if since and (not oldest or since < oldest) then oldest = since end
  end
  stand.o = oldest and now - oldest or -1
  local mean, rate = fold_pace(queue, now)
  stand.v, stand.r = mean or -1, rate
  redis.call('HSET', key, 'q|' .. queue, cjson.encode(stand))
end
redis.call('HSET', key, 'at', ms_text(now))
redis.call('PEXPIRE', key, 60000)
for i = 2, #ARGV do found[i] = redis.call('HGET', key, 'q|' .. ARGV[i]) end
return found
