-- journal: what a turn's local calls came to, where they alone are to be written: what send would do, and no more.
-- include: common
-- ARGV: root, id, worker, take, token, place seen, number of asks, their entries as JSON, then the results' entries without
--         their time
-- Reply: {1, now} written at this time, behind what the turn had seen; {1, now, entries of the log from there on…} when there
--        was more; {0, state, worker, take} as send; {3} nothing was written: in this tree something was called off or
--        stands still, and send knows what that means
-- Keeps: a stale turn records nothing (2); a call and its outcome are one instant, so that what begins next can build on it
--   (11).
local root, id, worker, take, token, seen = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
local rec, log = K.step(root, id), K.log(root, id)
local f = redis.call('HMGET', rec, 's', 'w', 't', 'tok')
if f[1] ~= 'h' or f[2] ~= worker or f[3] ~= take then return { 0, f[1] or '', f[2] or '', f[3] or '' } end
-- As in send: its successor would not know in time.
if redis.call('EXISTS', K.dead(worker)) == 1 then return { 0, 'dead', '', '' } end

local function tail(now)
  local entries = redis.call('LRANGE', log, seen, -1)
  table.insert(entries, 1, now)
  table.insert(entries, 1, 1)
  return entries
end
if f[4] == token then return tail(0) end
if redis.call('EXISTS', K.cancelled(root)) == 1 then return { 3 } end

local now, asks = now_ms(), tonumber(ARGV[7])
redis.call('HSET', rec, 'tok', token, 'd', 0)
local entries = {}
for at = 8, #ARGV do
  local entry = ARGV[at]
  entries[#entries + 1] = at < 8 + asks and entry or stamped(entry, now)
end
local length = redis.call('RPUSH', log, unpack(entries))
if length == seen + #entries then return { 1, now } end
return tail(now)
