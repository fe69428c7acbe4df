-- How long attempts hold a slot, queue by queue: sums since the last survey, which folds them into a mean.

-- An attempt that was begun at `begun` has given its slot back, whatever came of it. Of the short ones, which are many,
-- every eighth stands for eight.
local function note_pace(queue, begun, take, now)
  if not queue or not begun then return end
  local took, weight = math.max(now - tonumber(begun), 0), 1
  if took < 100 then
    if tonumber(take) % 8 ~= 0 then return end
    weight = 8
  end
  redis.call('HINCRBY', K.pace(), 'n|' .. queue, weight)
  redis.call('HINCRBY', K.pace(), 'ms|' .. queue, weight * took)
end

-- The mean in ms, and attempts a second; nil where none was ever measured. What was lately counts most: of eight new
-- attempts the mean takes on a half, the rate takes on what ten seconds say.
local function fold_pace(queue, now)
  local key = K.pace()
  local f = redis.call('HMGET', key, 'n|' .. queue, 'ms|' .. queue, 'v|' .. queue, 'r|' .. queue, 'at|' .. queue)
  local n, mean, rate = tonumber(f[1] or 0), tonumber(f[3]), tonumber(f[4] or 0)
  local passed = math.max(now - tonumber(f[5] or now), 0)
  if n > 0 then
    local latest = tonumber(f[2]) / n
    mean = mean and mean + (latest - mean) * n / (n + 8) or latest
    redis.call('HDEL', key, 'n|' .. queue, 'ms|' .. queue)
  end
  if not mean then return nil, 0 end
  if passed > 0 then rate = rate + (n * 1000 / passed - rate) * (1 - math.exp(-passed / 10000)) end
  redis.call('HSET', key, 'v|' .. queue, string.format('%.3f', mean), 'r|' .. queue, string.format('%.4f', rate),
    'at|' .. queue, ms_text(now))
  return mean, rate
end
