-- publish: split mode: what the broker is to hear of now, and when it is to hear of it again.
-- include: common
-- ARGV: chunk, ms until the second time (it doubles from there), ms between two times at the most
-- Reply: per entry {name root|step|generation, queue, lane, ms until the next time, '', since when it waits}, or for a
--        plain message, which is no hint but the message itself, {'|number|0', queue, lane, ms, message, ''}
-- Keeps: custody from start to commit (1): whatever the broker loses is published again, and whoever publishes may die.
local chunk, pause, longest = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local now = now_ms()
local unsent = K.unsent()

-- Returns queue, lane, times published before, message, since when; nil when the name is not to be published any more. A
-- step that was taken before its hint was told has one all the same, once: see take_turn.
local function found(name)
  local root, id, generation = string.match(name, '^([^|]*)|([^|]*)|(%d+)$')
  if root == '' then
    local entry = redis.call('HGET', K.outbox(), id)
    if not entry then return nil end
    local queue, lane, message = parts_of(entry)
    return queue, lane, 0, message, ''
  end
  local rec = K.step(root, id)
  local f = redis.call('HMGET', rec, 's', 'g', 'q', 'l', 'sq', 'c')
  if not f[1] then return nil end
  if f[1] ~= 'q' or f[2] ~= generation then return f[3], f[4], nil, '', f[5] or f[6] or '' end
  return f[3], f[4], redis.call('HINCRBY', rec, 'u', 1) - 1, '', f[5] or f[6] or ''
end

local out = {}
local names = redis.call('ZRANGEBYSCORE', unsent, '-inf', now, 'LIMIT', 0, chunk)
for _, name in ipairs(names) do
  local queue, lane, times, message, since = found(name)
  if queue then
    local wait = math.min(pause * 2 ^ math.min(times or 0, 30), longest)
    out[#out + 1] = { name, queue, lane, ms_text(wait), message, since }
    if times then redis.call('ZADD', unsent, ms_text(now + wait), name) end
  end
  if not times then redis.call('ZREM', unsent, name) end
end
-- What rang before is answered.
if #names < chunk then redis.call('DEL', K.bell('')) end
return out
