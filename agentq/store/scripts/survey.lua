-- survey: how the queues stand: who serves them, what waits, and how long an attempt lasts there.
-- include: common standing
-- ARGV: ms for which what somebody else has found is good enough, queues…
-- Reply: {server's time in ms of the look, JSON of each queue in the order asked}: w workers that take, x that do not,
--   s slots and b busy ones of those that take, n how many wait in each lane, o ms for which the oldest waits (-1: none),
--   v mean ms of an attempt (-1: none measured), r attempts a second, hb held back by lane
-- Keeps: however many processes ask, the server looks once per that time; nothing is decided by it that custody needs.
local now, key = now_ms(), K.survey()

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
for i = 2, #ARGV do stands[ARGV[i]] = new_stand() end
-- What others have asked for lately is looked at as well, so that they need not look by themselves.
for _, name in ipairs(redis.call('HKEYS', key)) do
  local queue = string.match(name, '^q|(.*)$')
  if queue then stands[queue] = stands[queue] or new_stand() end
end
count_workers(stands, {}, {}, now)
count_waits(stands, now)

found = { ms_text(now) }
redis.call('DEL', key)
for queue, stand in pairs(stands) do
  local mean, rate = fold_pace(queue, now)
  stand.v, stand.r = mean or -1, rate
  redis.call('HSET', key, 'q|' .. queue, cjson.encode(stand))
end
redis.call('HSET', key, 'at', ms_text(now))
redis.call('PEXPIRE', key, 60000)
for i = 2, #ARGV do found[i] = redis.call('HGET', key, 'q|' .. ARGV[i]) end
return found
