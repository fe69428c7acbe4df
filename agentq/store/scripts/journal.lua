-- journal: what a turn's local calls came to, where they alone are to be written: what send would do, and no more.
-- include: common
-- ARGV: root, id, worker, take, place seen, number of asks, their entries as JSON, then the results' entries without
--         their time
-- Reply: {1, now} written at this time, behind what the turn had seen; {1, now, entries of the log from there on…} when there
--        was more; {0, state, worker, take} as send; {3} nothing was written: in this tree something was called off or
--        stands still, and send knows what that means
-- Keeps: a stale turn records nothing (2); a call and its outcome are one instant, so that what begins next can build on it
--   (11). It needs no token: what it writes stands in the log, behind what the turn had seen, where a repeat finds it.
local root, id, worker, take, seen = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local FIRST = 7
local rec, log = K.step(root, id), K.log(root, id)
local f = redis.call('HMGET', rec, 's', 'w', 't', 'd')
if f[1] ~= 'h' or f[2] ~= worker or f[3] ~= take then return { 0, f[1] or '', f[2] or '', f[3] or '' } end

local function tail(now)
  local entries = redis.call('LRANGE', log, seen, -1)
  table.insert(entries, 1, now)
  table.insert(entries, 1, 1)
  return entries
end

-- Whether the first of these entries is among those that the turn has not seen. An ask has an id of its own, and the call
-- one outcome, which begins with a time there.
local function is_written(asks)
  local entry = ARGV[FIRST]
  if asks == 0 then entry = string.sub(entry, 2) end
  for _, line in ipairs(redis.call('LRANGE', log, seen, -1)) do
    if string.sub(line, -#entry) == entry then return true end
  end
  return false
end

local asks = tonumber(ARGV[6])
if redis.call('EXISTS', K.dead(worker), K.cancelled(root)) > 0 then
  -- As in send: its successor would not know in time.
  if redis.call('EXISTS', K.dead(worker)) == 1 then return { 0, 'dead', '', '' } end
  return is_written(asks) and tail(0) or { 3 }
end
local more = redis.call('LLEN', log) > seen
if more and is_written(asks) then return tail(0) end

local now = now_ms()
if f[4] and f[4] ~= '0' then redis.call('HSET', rec, 'd', 0) end
local entries = {}
for at = FIRST, #ARGV do
  local entry = ARGV[at]
  entries[#entries + 1] = at < FIRST + asks and entry or stamped(entry, now)
end
redis.call('RPUSH', log, unpack(entries))
return more and tail(now) or { 1, now }
