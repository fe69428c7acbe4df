-- Steps and plain messages that processes in the other mode have queued, brought to where this mode looks.
-- include: suspects

-- From unsent into a lane.
local function into_lane(name, now)
  local root, id, generation = string.match(name, '^([^|]*)|([^|]*)|(%d+)$')
  if root == '' then
    local entry = redis.call('HGET', K.outbox(), id)
    redis.call('HDEL', K.outbox(), id)
    if not entry then redis.call('ZREM', K.unsent(), name) return end
    local queue, lane, message = parts_of(entry)
    unlist(name, queue, lane)
    place_plain(queue, lane, message, now)
    return
  end
  local rec = K.step(root, id)
  local f = redis.call('HMGET', rec, 's', 'g', 'q', 'l')
  if f[1] ~= 'q' or f[2] ~= generation then redis.call('ZREM', K.unsent(), name) return end
  unlist(name, f[3], f[4])
  pull_line('split', f[3], f[4], redis.call('HGET', rec, 'tn') or '', name)
  redis.call('HDEL', rec, 'u')
  place_again(root, id, rec, f[3], f[4], generation, take_kept(root, id), now)
end

-- From a lane into unsent; what its record does not name, or what stands there already, is a duplicate.
local function out_of_lane(root, id, rest, now)
  local rec = K.step(root, id)
  local f = redis.call('HMGET', rec, 's', 'g', 'q', 'l')
  if f[1] ~= 'q' or redis.call('ZSCORE', K.unsent(), root .. '|' .. id .. '|' .. f[2]) then return 0 end
  place_again(root, id, rec, f[3], f[4], f[2], rest, now)
  return 1
end

-- Steps out of the lines of a lane, at most chunk of each tenant's.
local function empty_lines(queue, lane, chunk, now)
  local moved = 0
  for _, tenant in ipairs(tenants_in('fused', queue, lane)) do
    for _ = 1, chunk do
      local message = pop_of('fused', queue, lane, tenant)
      if not message then break end
      local root, id = name_of(message)
      moved = moved + out_of_lane(root, id, rest_of(message), now)
    end
  end
  return moved
end
