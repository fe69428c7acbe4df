-- decide: what the leader of pools has decided is there for all to read, and kept; to be called before it is acted on.
-- include: common
-- ARGV: controller, most entries kept of a pool, ms for which they are kept, and per pool two lines of JSON: {pool, fence, 1
--   when it is an event to keep | 0 when it only says how things stand, workers to drain, to drain no more}; the decision
-- Reply: JSON, per pool the newest fence; what is not the caller's own says that another leads: nothing was written of that pool
-- Keeps: of two controllers that hold themselves for the leader only the newer one decides, and drains. What a person has
--   drained stays so.
local controller, most, kept, now = ARGV[1], ARGV[2], tonumber(ARGV[3]), now_ms()

local function keep_event(pool, text)
  local events = K.decisions(pool)
  local last = redis.call('XREVRANGE', events, '+', '-', 'COUNT', 1)[1]
  -- The repeat of a call whose reply was lost.
  if last and last[2][2] == text then return end
  redis.call('XADD', events, 'MAXLEN', '~', most, '*', 'd', text)
  redis.call('XTRIM', events, 'MINID', '~', ms_text(math.max(now - kept, 0)))
  redis.call('PEXPIRE', events, kept)
end

local function mark_drains(marks)
  for _, worker in ipairs(marks[4]) do
    redis.call('HSETNX', K.drained(), 'worker|' .. worker, '{"by":"autoscale","at":' .. ms_text(now) .. '}')
  end
  for _, worker in ipairs(marks[5]) do
    local mark = redis.call('HGET', K.drained(), 'worker|' .. worker)
    if mark and string.find(mark, '"by":"autoscale"', 1, true) then
      redis.call('HDEL', K.drained(), 'worker|' .. worker)
    end
  end
end

local out = {}
-- One argument: a client takes longer over some hundred of them than this takes.
for line, text in string.gmatch(ARGV[4], '([^\n]+)\n([^\n]+)\n') do
  local told = cjson.decode(line)
  local pool, fence = told[1], told[2]
  local standing = redis.call('HGET', K.leaders(), pool)
  local newest, upto, holder = string.match(standing or '', '^(%d+)|(%d+)|([^|]*)|')
  newest = tonumber(newest or 0)
  if newest == fence and holder == controller and now < tonumber(upto) then
    out[#out + 1] = fence
    redis.call('HSET', K.sized(), pool, text)
    redis.call('PEXPIRE', K.sized(), kept)
    if told[3] == 1 then keep_event(pool, text) end
    mark_drains(told)
  else
    -- Also after the end of its lease though nobody has it yet: somebody may, before it has acted.
    out[#out + 1] = newest == fence and newest + 1 or newest
  end
end
return cjson.encode(out)
