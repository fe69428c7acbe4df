-- take: moves up to n messages from lanes, or in split mode those that the broker named, into a worker's custody.
-- Taking is the claim.
-- include: common tree offer cancel suspects claim
-- ARGV: worker, token, slots, label, low share (every N-th take begins with the lowest lane; 0 never), floor (the
--   highest take number that the process has seen), 1 when nothing runs in this worker | 0, then queues…; in split mode
--   instead names (root|step|generation)… as the broker's messages hold them
-- Reply: {0} the worker is marked dead; {2} it is to take nothing until nothing runs in it; else {1, (take, queue,
--   flags, message)…}; flags: 1 cancelled | 2 overdue, and 4 a suspect: nothing is to be taken until it has ended
-- Keeps: only a queued record of the message's generation is taken (the rule); no instant exists at which a step is
--   in no list (1); a dead worker takes nothing (3); the same token gets the same reply; a suspect runs with nothing
--   beside it but those that died with it, and of these at most half (9); numbers go on from the floor when the server
--   has lost its data, so that an attempt from before fences nobody (2).
local worker, token, slots, label, low = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local idle, FIRST_QUEUE, SUSPECT = ARGV[7] == '1', 8, 4
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

local c = redis.call('HMGET', card, 'token', 'first', 'end', 'alone', 'last')
if c[1] == token then
  local suspect = c[4] == c[2] .. '|' .. c[3] and SUSPECT or 0
  for take = tonumber(c[2]), tonumber(c[3]) do
    local entry = redis.call('HGET', held, take)
    if entry then
      local queue, _, message = parts_of(entry)
      local root, id = name_of(message)
      give(take, queue, suspect + (root and flag_of(root, id, K.step(root, id)) or 0), message)
    end
  end
  return out
end

local first = math.max(tonumber(c[5] or 0), tonumber(ARGV[6])) + 1
local last = first - 1
local function count() return last - first + 1 end

local function accept(queue, lane, message, suspect)
  local flags = claim(worker, label, last + 1, queue, lane, message, now)
  if not flags then return false end
  last = last + 1
  slots = slots - 1
  give(last, queue, flags + (suspect or 0), message)
  return true
end

-- Whether this worker is the one that makes itself free for a suspect of the queue that waits since long.
local function is_freeing(queue, since)
  if not since or now - tonumber(since) < SUSPECT_MS then return false end
  local chosen = redis.call('GET', K.freeing(queue))
  if chosen and chosen ~= worker and tonumber(redis.call('ZSCORE', K.workers(), chosen) or 0) > now then return false end
  redis.call('SET', K.freeing(queue), worker, 'PX', 600000)
  return true
end

local alone = count_alone(worker) > 0
if c[4] and not alone then redis.call('HDEL', card, 'alone') end
local most = alone and 0 or slots

-- A suspect comes if nothing else has come, and as many together as each of them allows.
local function fits(rec)
  if not idle or count() >= most or (count() > 0 and not alone) then return false end
  return count() == 0 or count() < tonumber(redis.call('HGET', rec, 'co') or 1)
end

local function accept_suspect(queue, lane, message, rec)
  accept(queue, lane, message, SUSPECT)
  most, alone, slots = math.min(most, tonumber(redis.call('HGET', rec, 'co') or 1)), true, 0
  if redis.call('GET', K.freeing(queue)) == worker then redis.call('DEL', K.freeing(queue)) end
end

local function take_suspects(queue)
  local key = K.suspects(queue)
  while true do
    local lane, message, since = suspect_at(redis.call('LINDEX', key, -1))
    if not lane then return end
    local root, id, generation = name_of(message)
    local rec = K.step(root, id)
    local f = redis.call('HMGET', rec, 's', 'g')
    if f[1] == 'q' and f[2] == generation then
      if not fits(rec) then
        if not idle and slots > 0 and is_freeing(queue, since) then out[1] = 2 end
        return
      end
      accept_suspect(queue, lane, message, rec)
    end
    redis.call('RPOP', key)
  end
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
  local f = redis.call('HMGET', rec, 's', 'g', 'q', 'l', 'd', 'ss')
  if f[1] ~= 'q' or f[2] ~= generation or redis.call('EXISTS', K.message(root, id)) == 0 then return end
  local suspect = tonumber(f[5] or 0) > 0
  if suspect and not fits(rec) or not suspect and slots <= 0 then
    if suspect and not idle and is_freeing(f[3], f[6]) then out[1] = 2 end
    -- Its hint is used up: the broker is to hear of it again soon.
    redis.call('ZADD', K.unsent(), 'XX', ms_text(now + 500), name)
    return
  end
  local take = suspect and accept_suspect or accept
  take(f[3], f[4], message_of(root, id, generation, take_kept(root, id)), suspect and rec or nil)
  redis.call('HDEL', rec, 'u')
  unlist(name, f[3], f[4])
end

if alone then slots = 0 end
local turn = redis.call('HINCRBY', card, 'takes', 1)
if SPLIT then
  for i = FIRST_QUEUE, #ARGV do take_named(ARGV[i]) end
else
  for i = FIRST_QUEUE, #ARGV do
    if count() == 0 and out[1] == 1 and most > 0 then take_suspects(ARGV[i]) end
  end
  if out[1] == 2 then slots = 0 end
  for _, lane in ipairs(lanes_in_turn(turn, low)) do
    for i = FIRST_QUEUE, #ARGV do take_from(ARGV[i], lane) end
  end
end
redis.call('HSET', card, 'token', token, 'first', first, 'end', last, 'last', last)
if alone and count() > 0 then redis.call('HSET', card, 'alone', first .. '|' .. last) end
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
