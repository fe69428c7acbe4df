-- Hedges: a second step beside one that takes long, on another worker; the first of the two to succeed is the answer. Here:
-- when one is due, and who may not take it. In hedge.lua how it is started, in answering.lua which of the two answers.
-- Fields: hg of the first, after how many ms or at which quantile of its time; tw of both, the other one; hd of the second,
-- the first; an of the second, the node that it had rather not run on; aw of the one that is not wanted any more.

-- Service times of a step are counted in so many buckets for each doubling: each is known to a ninth.
local SPAN_SHARES = 8
-- For so long a second one waits for another node.
local OTHER_NODE_MS = 5000

-- After how many ms a step is slow: a number of them, or where its measured times tell a quantile. nil while too few are
-- known: of a hundred times, one is beyond p99.
local function slow_after(hg, name)
  local quantile = tonumber(string.match(hg, '^p(.+)$'))
  if not quantile then return tonumber(hg) end
  local flat, buckets, total = redis.call('HGETALL', K.spans(redis.sha1hex(name))), {}, 0
  for i = 1, #flat, 2 do
    local bucket, n = tonumber(flat[i]), tonumber(flat[i + 1])
    if bucket then
      buckets[#buckets + 1] = { bucket, n }
      total = total + n
    end
  end
  if total * (100 - quantile) < 100 then return nil end
  table.sort(buckets, function(a, b) return a[1] < b[1] end)
  local below = 0
  for _, each in ipairs(buckets) do
    below = below + each[2]
    if below * 100 >= quantile * total then return math.ceil(2 ^ ((each[1] + 1) / SPAN_SHARES)) end
  end
end

-- An attempt begins: from when on it is slow.
local function arm_hedge(root, id, rec, generation, hg, now)
  local f = redis.call('HMGET', rec, 'nm', 'tw')
  local after = not f[2] and slow_after(hg, f[1])
  if after then redis.call('ZADD', K.hedges(), ms_text(now + after), root .. '|' .. id .. '|' .. generation) end
end

-- Whether a worker leaves a second step to others: it holds the first itself, or is on its node, and others there are.
local function is_left_to_others(root, id, rec, worker, now)
  local f = redis.call('HMGET', rec, 'hd', 'an', 'c')
  if is_cancelled(root, id, rec) then return false end
  local first = redis.call('HMGET', K.step(root, f[1]), 's', 'w')
  if first[1] == 'h' and first[2] == worker then return true end
  if not f[2] or now - tonumber(f[3]) >= OTHER_NODE_MS then return false end
  local details = cjson.decode(redis.call('HGET', K.worker(worker), 'details') or '{}')
  return (details.node or details.host) == f[2]
end
