-- take: moves up to n messages from lanes, or in split mode those that the broker named, into a worker's custody.
-- Taking is the claim.
-- include: common tree offer cancel
-- ARGV: worker, token, slots, label, low share (every N-th take begins with the lowest lane; 0 never), floor (the
--   highest take number that the process has seen), then queues…; in split mode instead names (root|step|generation)…
--   as the broker's messages hold them
-- Reply: {0} the worker is marked dead; else {1, (take, queue, 0 | 1 cancelled | 2 overdue, message)…}
-- Keeps: only a queued record of the message's generation is taken (the rule); no instant exists at which a step is
--   in no list (1); a dead worker takes nothing (3); the same token gets the same reply;
--   numbers go on from the floor when the server has lost its data, so that an attempt from before fences nobody (2).
local worker, token, slots, label, low = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local FIRST_QUEUE = 7
if redis.call('EXISTS', K.dead(worker)) == 1 then return { 0 } end
local now = now_ms()
local held, card = K.held(worker), K.worker(worker)

local out = { 1 }
local function give(take, queue, flag, message)
  out[#out + 1] = take
  out[#out + 1] = queue
  out[#out + 1] = flag
  out[#out + 1] = message
end

-- What the taker has to do instead of running it: end a cancelled step, or one whose last attempt passed its hard limit.
local function flag_of(root, id, rec)
  if is_cancelled(root, id, rec) then return 1 end
  return redis.call('HEXISTS', rec, 'ov') == 1 and 2 or 0
end

local c = redis.call('HMGET', card, 'token', 'first', 'last')
if c[1] == token then
  for take = tonumber(c[2]), tonumber(c[3]) do
    local entry = redis.call('HGET', held, take)
    if entry then
      local queue, _, message = parts_of(entry)
      local root, id = name_of(message)
      give(take, queue, root and flag_of(root, id, K.step(root, id)) or 0, message)
    end
  end
  return out
end

local lanes = { 0, 3, 6, 9 }
local turn = redis.call('HINCRBY', card, 'takes', 1)
if low > 0 and turn % low == 0 then lanes = { 9, 6, 3, 0 } end
local first = math.max(tonumber(redis.call('HGET', card, 'last') or 0), tonumber(ARGV[6])) + 1
local last = first - 1

-- Whether the record agrees to the message; then this worker is its holder.
local function accept(queue, lane, message)
  local root, id, generation = name_of(message)
  local flag = 0
  if root then
    local rec = K.step(root, id)
    local f = redis.call('HMGET', rec, 's', 'g')
    if f[1] ~= 'q' or f[2] ~= generation then return false end
    redis.call('HSET', rec, 's', 'h', 'w', worker, 't', last + 1, 'wl', label, 'b', ms_text(now))
    redis.call('HINCRBY', rec, 'a', 1)
    flag = flag_of(root, id, rec)
    note_step(root, rec, id, 'started', now)
  end
  last = last + 1
  slots = slots - 1
  redis.call('HSET', held, last, entry_of(queue, lane, message))
  give(last, queue, flag, message)
  return true
end

local function take_from(queue, lane)
  while slots > 0 do
    local message = redis.call('RPOP', K.lane(queue, lane))
    if not message then return end
    accept(queue, lane, message)
  end
end

local function take_named(name)
  local root, id, generation = string.match(name, '^([^|]+)|([^|]+)|(%d+)$')
  if not root then return end
  local rec = K.step(root, id)
  local f = redis.call('HMGET', rec, 's', 'g', 'q', 'l')
  if f[1] ~= 'q' or f[2] ~= generation or redis.call('EXISTS', K.message(root, id)) == 0 then return end
  accept(f[3], f[4], message_of(root, id, generation, take_kept(root, id)))
  redis.call('HDEL', rec, 'u')
  unlist(name, f[3], f[4])
end

if SPLIT then
  for i = FIRST_QUEUE, #ARGV do
    if slots > 0 then take_named(ARGV[i]) end
  end
else
  for _, lane in ipairs(lanes) do
    for i = FIRST_QUEUE, #ARGV do take_from(ARGV[i], lane) end
  end
end
redis.call('HSET', card, 'token', token, 'first', first, 'last', last)
if slots > 0 and not SPLIT then
  -- Every lane was looked at to its end: what rang before is answered, and must not wake anybody for nothing.
  for i = FIRST_QUEUE, #ARGV do redis.call('DEL', K.bell(ARGV[i])) end
end
-- A consumer that keeps no lease (a plain kombu one) is given up after an hour without a take, as in stock kombu.
if redis.call('HEXISTS', card, 'since') == 0 then
  redis.call('ZADD', K.workers(), now + 3600000, worker)
  redis.call('PEXPIRE', card, 7200000)
end
return out
