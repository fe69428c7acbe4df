-- lead: a controller takes or keeps the lease on pools, or gives it back.
-- include: common
-- ARGV: controller, label, lease in ms (0: give back), pools as a JSON list
-- Reply: JSON, per pool {1, fence} it leads; {0, fence, label, ms} another does, for so long at least
-- Keeps: of several controllers one leads a pool; its fence is greater than that of each before, so that what an earlier
--   one still does can be told. Asked again by the leader, it answers the same and lasts longer.
local controller, label, lease, now = ARGV[1], ARGV[2], tonumber(ARGV[3]), now_ms()
local out = {}
-- One argument and one reply: a client takes longer over some hundred of them than this takes.
for _, pool in ipairs(cjson.decode(ARGV[4])) do
  local standing = redis.call('HGET', K.leaders(), pool)
  local fence, upto, holder, name = string.match(standing or '', '^(%d+)|(%d+)|([^|]*)|(.*)$')
  fence, upto = tonumber(fence or 0), tonumber(upto or 0)
  -- A deadline further ahead than any lease was written before the server's clock was set back.
  local free = holder ~= controller and (not holder or now >= upto or upto - now > math.max(lease, 1) * 10)
  if holder == controller or (free and lease > 0) then
    -- One who comes back after the end of its own lease, and after nobody else, has missed nothing.
    -- Not below the clock: platforms remember the greatest, also when this server has lost its data.
    if free then fence = math.max(fence + 1, now) end
    redis.call('HSET', K.leaders(), pool, string.format('%.0f|%.0f|%s|%s', fence, now + lease, controller, label))
    out[#out + 1] = { 1, fence }
  else
    out[#out + 1] = { 0, fence, name or '', free and 0 or upto - now }
  end
end
return cjson.encode(out)
