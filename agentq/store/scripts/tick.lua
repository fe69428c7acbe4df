-- tick: what time brings: workers whose lease has run out, timers, retention. Any worker or controller may call it, any number.
-- include: common tree offer backlog cancel suspects letters release rehouse unwind gates hedge
-- ARGV: lease in ms, chunk: of timers and of what is given back, some 50 µs each; of keys that get or lose their end four
--   times as many
-- Reply: {workers marked dead, entries released, timers fired, trees retired, steps condemned, whether more waits: who
--   sees that shall tick again soon}
-- Keeps: a dead worker's work moves within the lease (8); after a gap of more than 1 s in the ticks nobody is marked
--   dead for a full lease, so an outage or a jump of the clock never makes survivors rob each other (3, 8).
local lease, chunk = tonumber(ARGV[1]), tonumber(ARGV[2])
local now = now_ms()
local dead, released, fired, retired, condemned, behind = 0, 0, 0, 0, 0, 0

local f = redis.call('HMGET', K.ticks(), 'at', 'grace', 'next')
local at, grace, following_ms = tonumber(f[1]), tonumber(f[2] or 0), tonumber(f[3] or 0)
if not at or now - at > 1000 or now < at then grace = now + lease end
redis.call('HSET', K.ticks(), 'at', ms_text(now), 'grace', ms_text(grace))

if now >= grace then
  for _, worker in ipairs(redis.call('ZRANGEBYSCORE', K.workers(), '-inf', now, 'LIMIT', 0, 20)) do
    redis.call('ZREM', K.workers(), worker)
    redis.call('SET', K.dead(worker), 1, 'PX', RETENTION_MS)
    redis.call('ZADD', K.reaping(), now, worker)
    dead = dead + 1
  end
end

local room = chunk
for _, worker in ipairs(redis.call('ZRANGE', K.reaping(), 0, 9)) do
  local takes = redis.call('HKEYS', K.held(worker))
  table.sort(takes, function(a, b) return tonumber(a) > tonumber(b) end)
  for i = 1, math.min(room, #takes) do
    local gone = give_back(worker, takes[i], company_of(worker), now)
    released = released + math.min(gone, 1)
    if gone == 2 then condemned = condemned + 1 end
  end
  if #takes <= room then
    redis.call('ZREM', K.reaping(), worker)
    redis.call('DEL', K.worker(worker))
    redis.call('HDEL', K.drained(), 'worker|' .. worker)
    redis.call('HDEL', K.warm(), worker)
  else
    behind = 1
  end
  room = math.max(room - #takes, 0)
end

-- The rest goes on chunk by chunk and as fast as its keepers ask, of whom there may be many: between two chunks the server
-- is everybody's. A time further ahead was written before its clock was set back.
local BREATH_MS = 10
if now < following_ms and following_ms - now <= BREATH_MS then return { dead, released, 0, 0, condemned, behind } end

local due = redis.call('ZRANGEBYSCORE', K.due(), '-inf', now, 'LIMIT', 0, chunk)
if #due == chunk then behind = 1 end
for _, name in ipairs(due) do
  redis.call('ZREM', K.due(), name)
  local root, id, generation = string.match(name, '^([^|]*)|([^|]*)|(%d+)$')
  local rec = K.step(root, id)
  local r = redis.call('HMGET', rec, 's', 'g', 'q', 'l', 'hw')
  if root == '' then
    fired = fired + offer_again(id, now)
  elseif r[2] == generation and r[1] == 'l' then
    place_again(root, id, rec, r[3], r[4], generation, take_kept(root, id), now)
    fired = fired + 1
  elseif r[2] == generation and r[1] == 'p' and r[5] then
    -- Its rest has ended; what woke it stands in its log already.
    wake(root, id, now, true)
    fired = fired + 1
  elseif r[2] == generation and r[1] == 'p' then
    tell(root, id, '{"k":"tick"}', now)
    fired = fired + 1
  end
end

-- Some 100 µs each, and more of them where there are many workers.
local slow = redis.call('ZRANGEBYSCORE', K.hedges(), '-inf', now, 'LIMIT', 0, 20)
if #slow == 20 then behind = 1 end
for _, name in ipairs(slow) do
  redis.call('ZREM', K.hedges(), name)
  local root, id, generation = string.match(name, '^([^|]*)|([^|]*)|(%d+)$')
  start_hedge(root, id, generation, now)
end

local looked = redis.call('ZRANGEBYSCORE', K.gates(), '-inf', now, 'LIMIT', 0, 20)
for _, digest in ipairs(looked) do gates().look(digest, now) end
if #looked == 20 then behind = 1 end
if refill(chunk, now) == chunk then behind = 1 end

-- Split mode's workers look every second for what is to be published. What is overdue has none of them any more; what is
-- not would go to and fro between the two kinds.
if not SPLIT then
  local overdue = redis.call('ZRANGEBYSCORE', K.unsent(), '-inf', now - 3000, 'LIMIT', 0, chunk)
  for _, name in ipairs(overdue) do into_lane(name, now) end
  if #overdue == chunk then behind = 1 end
end

-- Any two of the dead letters: a step that nobody wants any more is taken as cancelled, and does not start. A cancelled
-- agent whose turns kill their workers will never see its cancel: it is given up. What no worker can read or knows is
-- left to a person, wanted or not: it would be condemned again and again.
for _, id in ipairs(redis.call('ZRANDMEMBER', K.letters(), 2)) do
  local l = redis.call('HMGET', K.letter(id), 'root', 'q', 'l', 'm', 'k', 'why')
  local rec = l[1] and K.step(l[1], id)
  if rec and l[6] == 'poison' and redis.call('HGET', rec, 's') == 'x' then
    if l[5] == 'a' and redis.call('SISMEMBER', K.cancelled(l[1]), id) == 1 then redis.call('HSET', rec, 'gu', 1) end
    if is_cancelled(l[1], id, rec) then pardon(l[1], id, rec, l[2], l[3], rest_of(l[4]), now) end
  end
end

-- Any two of the listed runs: what is left of one whose retention has ended is its name.
for _, name in ipairs(redis.call('ZRANDMEMBER', K.runs(), 2)) do
  local root, run = string.match(name, '^([^|]*)|(.*)$')
  if redis.call('EXISTS', K.step(root, run)) == 0 then redis.call('ZREM', K.runs(), name) end
end

-- What waits for an archive that was turned off since goes as it would have gone without one.
if not ARCHIVES then
  local ended = redis.call('ZRANGEBYSCORE', K.ended(), '-inf', now - RETENTION_MS, 'LIMIT', 0, 10)
  if #ended == 10 then behind = 1 end
  for _, root in ipairs(ended) do
    redis.call('ZREM', K.ended(), root)
    if redis.call('HGET', K.tree(root), 'live') == '0' then retire_tree(root) end
  end
end

-- Goes on with the tree that has come the least far; tells whether it came to its end.
local function walk(places, act, chunk)
  local tree = redis.call('ZRANGE', places, 0, 0, 'WITHSCORES')
  if not tree[1] then return false end
  local following = act(tree[1], tonumber(tree[2]), chunk)
  if following then
    redis.call('ZADD', places, following, tree[1])
  else
    redis.call('ZREM', places, tree[1])
  end
  if redis.call('EXISTS', places) == 1 then behind = 1 end
  return not following
end

if walk(K.retiring(), retire_chunk, 4 * chunk) then retired = 1 end
walk(K.reviving(), revive_chunk, 4 * chunk)
walk(K.unwinding(), function(name, first, size) return unwind_chunk(name, first, size, now) end, chunk)
if behind == 1 then redis.call('HSET', K.ticks(), 'next', ms_text(now + BREATH_MS)) end
return { dead, released, fired, retired, condemned, behind }
