-- How long attempts hold a slot, and what comes of them: sums by queue and step that only grow, so that any number of
-- readers may each look at what was added since.

-- An attempt that was begun at `begun` has given its slot back, whatever came of it. Of the short ones, which are many,
-- every eighth stands for eight. failed: it did not succeed; ended: its step has, so that no further attempt follows.
local function note_pace(queue, name, begun, take, now, failed, tokens, ended)
  if not queue or not begun then return end
  local took, weight = math.max(now - tonumber(begun), 0), 1
  if took < 100 then
    if tonumber(take) % 8 ~= 0 then return end
    weight = 8
  end
  local key, field = K.pace(queue), name or ''
  local sums = redis.call('HGET', key, field)
  if not sums and redis.call('HLEN', key) >= 1000 then
    -- Names are made by code; should they be made by chance, they count as one.
    field = ''
    sums = redis.call('HGET', key, field)
  end
  local n, ms, sq, f, t, e = string.match(sums or '0|0|0|0|0|0', '^(%d+)|(%d+)|(%d+)|(%d+)|(%d+)|(%d+)$')
  redis.call('HSET', key, field, string.format('%.0f|%.0f|%.0f|%.0f|%.0f|%.0f', n + weight, ms + weight * took,
    sq + weight * took * took, f + (failed and weight or 0), t + weight * (tokens or 0), e + (ended and weight or 0)))
end
