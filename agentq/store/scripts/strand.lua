-- strand: what waits in a queue that nobody serves is noted as unschedulable, and told with what it needs.
-- include: common
-- ARGV: queue, how many of each line at most, words, how many of each line's oldest are passed over; what stands behind
--   those is told and not noted: people need not hear of each of a million
-- Reply: per step {name root|step|generation, lane, tenant, what chose its queue as JSON, '' where nothing did}
-- Keeps: nothing moves (1): the steps go on where they wait as soon as a worker comes.
local queue, most, words, after = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local now, out = now_ms(), {}

local function mark(root, id, rec, attempts)
  redis.call('HSET', rec, 'un', (attempts or 0) .. '|' .. ms_text(now) .. '|worker|' .. words)
  redis.call('ZADD', K.unserved(), ms_text(now), root .. '|' .. id)
  note_step(root, rec, id, 'unschedulable', now, { q = queue, error = words })
end

local function look(lane, tenant)
  for _, entry in ipairs(redis.call('LRANGE', line_of(WAY, queue, lane, tenant), -after - most, -after - 1)) do
    local root, id, generation = name_of(entry)
    if SPLIT then root, id, generation = string.match(entry, '^([^|]+)|([^|]+)|(%d+)$') end
    local rec = root and K.step(root, id)
    local f = rec and redis.call('HMGET', rec, 's', 'g', 'nd', 'un', 'a') or {}
    if f[1] == 'q' and f[2] == generation then
      -- What it lacked before an earlier attempt was another thing.
      local marked = string.match(f[4] or '', '^(%d+)|%d+|worker|')
      if after == 0 and marked ~= (f[5] or '0') then mark(root, id, rec, f[5]) end
      out[#out + 1] = { root .. '|' .. id .. '|' .. generation, lane, tenant, f[3] or '' }
    end
  end
end

for _, lane in ipairs({ 0, 3, 6, 9 }) do
  look(lane, '')
  for _, tenant in ipairs(tenants_in(WAY, queue, lane)) do look(lane, tenant) end
end
return out
