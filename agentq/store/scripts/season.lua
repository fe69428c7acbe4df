-- season: what a pool had in an hour of a week is kept beside what the same hour had in the weeks before.
-- include: common
-- ARGV: controller, ms for which a record is kept after its last change, weeks that are kept of each hour, then per pool:
--   pool, fence, week, hour of the week, and of this hour under this fence: steps that came, ms that they take together,
--   ms for which it was looked at
-- Reply: per pool 1; 0 when another leads: nothing was written of that pool
-- Keeps: an hour has what each of its leaders saw of it, once: told again with more, or with the same, its part is replaced.
local controller, kept, weeks, now = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), now_ms()

-- Each entry is week:fence:steps:ms:seen, and then the same three of this hour's earlier leaders.
local function with(said, week, fence, sums)
  local entries, before = {}, { 0, 0, 0 }
  for entry in string.gmatch(said or '', '[^ ]+') do
    local w, f, rest = string.match(entry, '^(%d+):(%d+):([%d:]+)$')
    if w == week then
      local n = {}
      for number in string.gmatch(rest, '%d+') do n[#n + 1] = tonumber(number) end
      for i = 1, 3 do before[i] = n[3 + i] + (f ~= fence and n[i] or 0) end
    elseif w and tonumber(w) > week - weeks then
      entries[#entries + 1] = entry
    end
  end
  entries[#entries + 1] = string.format('%s:%s:%.0f:%.0f:%.0f:%.0f:%.0f:%.0f', week, fence,
    sums[1], sums[2], sums[3], before[1], before[2], before[3])
  return table.concat(entries, ' ')
end

local out = {}
for i = 4, #ARGV, 7 do
  local pool, fence, hour = ARGV[i], ARGV[i + 1], ARGV[i + 3]
  local newest, upto, holder = string.match(redis.call('HGET', K.leaders(), pool) or '', '^(%d+)|(%d+)|([^|]*)|')
  if newest == fence and holder == controller and now < tonumber(upto) then
    local key = K.seasons(pool)
    local said = redis.call('HGET', key, hour)
    local sums = { tonumber(ARGV[i + 4]), tonumber(ARGV[i + 5]), tonumber(ARGV[i + 6]) }
    redis.call('HSET', key, hour, with(said, ARGV[i + 2], fence, sums))
    redis.call('PEXPIRE', key, kept)
    out[#out + 1] = 1
  else
    out[#out + 1] = 0
  end
end
return out
