-- sense: all that a controller goes by, of all its pools at one moment.
-- include: common standing
-- ARGV: JSON, per queue: {its name, ms within which timers count, how many attempts and asks the asker knows of, 1 when its
--   workers are to be told one by one | 0, 1 when it is to be told of which tasks the held messages are | 0}
-- Reply: {server's time in ms, JSON: of each queue in the order asked}: as in survey, and h messages held, u suspects, t timers that fall due
--   within the time, c 1 when a person has drained it, k how many attempts and asks there were; if these are not those
--   that the asker knows, p: (step, sums…) or (>agent, asks)…; if asked for, d: its workers, r: held messages by task
-- Keeps: it changes nothing, so any number may ask.
-- One argument: a client takes longer over some hundred of them than this takes.
local asked = cjson.decode(ARGV[1])
local now, stands, listed, named, horizons, furthest = now_ms(), {}, {}, {}, {}, 0
for _, question in ipairs(asked) do
  local queue = question[1]
  stands[queue] = new_stand()
  listed[queue], named[queue] = question[4] == 1, question[5] == 1
  horizons[queue] = question[2]
  furthest = math.max(furthest, question[2])
end
count_workers(stands, listed, named, now)
count_waits(stands, now)

-- A page of the timers stands for all of them.
local MOST = 200
local latest = ms_text(now + furthest)
local due = redis.call('ZRANGEBYSCORE', K.due(), '-inf', latest, 'WITHSCORES', 'LIMIT', 0, MOST)
local each = #due < 2 * MOST and 1 or redis.call('ZCOUNT', K.due(), '-inf', latest) / MOST
for i = 1, #due, 2 do
  local root, id = string.match(due[i], '^([^|]*)|([^|]*)|')
  local queue = root and root ~= '' and redis.call('HGET', K.step(root, id), 'q')
  if queue and stands[queue] and tonumber(due[i + 1]) <= now + horizons[queue] then
    stands[queue].t = (stands[queue].t or 0) + each
  end
end

local out = {}
for _, question in ipairs(asked) do
  local stand, flat = stands[question[1]], redis.call('HGETALL', K.pace(question[1]))
  local count = sum_pace(flat)
  for at = 1, #flat, 2 do
    if string.sub(flat[at], 1, 1) == '>' then count = count + flat[at + 1] end
  end
  stand.k = count
  if count ~= question[3] then
    stand.p = {}
    for at = 1, #flat, 2 do
      if flat[at] ~= '|' then
        table.insert(stand.p, flat[at])
        table.insert(stand.p, flat[at + 1])
      end
    end
  end
  out[#out + 1] = cjson.encode(stand)
end
return { ms_text(now), '[' .. table.concat(out, ',') .. ']' }
