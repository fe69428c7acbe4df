-- decide: what the leader of pools has decided is there for all to read, and kept; to be called before it is acted on.
-- include: common
-- ARGV: controller, most entries kept of a pool, ms for which they are kept, then per pool: pool, fence, decision as JSON,
--   1 when it is an event to keep | 0 when it only says how things stand
-- Reply: per pool the newest fence; what is not the caller's own says that another leads: nothing was written of that pool
-- Keeps: of two controllers that hold themselves for the leader only the newer one decides.
local controller, most, kept, now = ARGV[1], ARGV[2], tonumber(ARGV[3]), now_ms()
local out = {}
for i = 4, #ARGV, 4 do
  local pool, fence, text, lasts = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2], ARGV[i + 3] == '1'
  local standing = redis.call('HGET', K.leaders(), pool)
  local newest, upto, holder = string.match(standing or '', '^(%d+)|(%d+)|([^|]*)|')
  newest = tonumber(newest or 0)
  if newest == fence and holder == controller and now >= tonumber(upto) then
    -- Its lease is over, though nobody has it yet: somebody may, before it has acted.
    out[#out + 1] = newest + 1
  else
    out[#out + 1] = (newest == fence and holder ~= controller) and newest + 1 or newest
    if newest == fence and holder == controller then
      redis.call('HSET', K.sized(), pool, text)
      local events = K.decisions(pool)
      local last = lasts and redis.call('XREVRANGE', events, '+', '-', 'COUNT', 1)[1]
      if lasts and not (last and last[2][2] == text) then
        redis.call('XADD', events, 'MAXLEN', '~', most, '*', 'd', text)
        redis.call('XTRIM', events, 'MINID', '~', ms_text(math.max(now - kept, 0)))
        redis.call('PEXPIRE', events, kept)
      end
    end
  end
end
if #out > 0 then redis.call('PEXPIRE', K.sized(), kept) end
return out
