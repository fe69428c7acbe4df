-- take: moves up to n messages from lanes, in split mode from those that the broker's hints are of, into a worker's
-- custody. Taking is the claim.
-- include: common tree offer backlog cancel suspects claim warmth
-- ARGV: worker, token, slots, label, low share (of what this worker takes every N-th is for the lower lanes; 0 never),
--   floor (the highest take number that the process has seen), 1 when nothing runs in this worker | 0, then queues…; in
--   split mode instead per hint: name (root|step|generation), queue, lane
-- Reply: {0} the worker is marked dead; {2} it is to take nothing until nothing runs in it; else {1, (take, queue,
--   flags, message)…}; flags: 1 cancelled | 2 overdue | 8 over its budget, and 4 a suspect: nothing is to be taken until
--   it has ended
-- Order: the most urgent lane first; within one the tenants in turn, and each one's in their order. Of the lower lanes'
--   share the one has most whose head has waited longest for more than AGE_MS, else the lowest: so none starves. In fused
--   mode a step that names resources is left for WARMTH_MS to idle workers that have them open, one for each free slot.
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

local c = redis.call('HMGET', card, 'token', 'first', 'end', 'alone', 'last', 'takes')
if c[1] == token then
  local suspect = c[4] == c[2] .. '|' .. c[3] and SUSPECT or 0
  for take = tonumber(c[2]), tonumber(c[3]) do
    local entry = redis.call('HGET', held, take)
    if entry then
      local queue, _, message = parts_of(entry)
      local root, id = name_of(message)
      local rec = root and K.step(root, id)
      give(take, queue, suspect + (root and flag_of(root, id, rec, redis.call('HGET', rec, 'ov')) or 0), message)
    end
  end
  return out
end

local first = math.max(tonumber(c[5] or 0), tonumber(ARGV[6])) + 1
local last = first - 1
local function count() return last - first + 1 end

-- Of a run that stands still thousands may wait: so many are set aside by one take, in some ms.
local MOST_ASIDE = 300
local stopped = 0

local left = {}
-- Comes back in front of its lane when this take has ended. rings: the next one that listens is told of it.
local function leave_there(queue, lane, tenant, message, rings)
  left[#left + 1] = { queue, lane, tenant or '', message, rings }
end

local function accept(queue, lane, message, suspect)
  local flags, is_stopped = claim(worker, label, last + 1, queue, lane, message, now, nil, suspect)
  if flags == false then
    local root, id = name_of(message)
    leave_there(queue, lane, redis.call('HGET', K.step(root, id), 'tn'), message, false)
  end
  if is_stopped then stopped = stopped + 1 end
  if not flags then return stopped > MOST_ASIDE end
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
  local before = last
  accept(queue, lane, message, SUSPECT)
  if redis.call('GET', K.freeing(queue)) == worker then redis.call('DEL', K.freeing(queue)) end
  -- Its run stands still: it waits elsewhere now, and keeps nothing out of this worker.
  if last == before then return end
  most, alone, slots = math.min(most, tonumber(redis.call('HGET', rec, 'co') or 1)), true, 0
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

-- Split mode: takes whose turn it is in the lane of a hint; false for a lane in which nothing waits. What is taken before
-- the broker has heard of it leaves its name in unsent: its hint is told all the same, once, and serves for the step whose
-- own is used up by this one. So there are always as many hints as wait.
local function take_turn(queue, lane, hinted)
  local passed = {}
  local function found(whether)
    for i = #passed, 1, -1 do push_line(queue, lane, passed[i][2], passed[i][1], true) end
    return whether
  end
  while true do
    local name = pop_line(WAY, queue, lane)
    if not name then return found(false) end
    local root, id, generation = string.match(name, '^([^|]+)|([^|]+)|(%d+)$')
    local f = redis.call('HMGET', K.step(root, id), 's', 'g', 'u', 'hd', 'tn')
    local waits = f[1] == 'q' and f[2] == generation and redis.call('EXISTS', K.message(root, id)) == 1
    if waits and f[4] and is_left_to_others(root, id, K.step(root, id), worker, now) then
      passed[#passed + 1] = { name, f[5] or '' }
    elseif waits then
      accept(queue, lane, message_of(root, id, generation, take_kept(root, id)))
      if f[3] or name == hinted then
        redis.call('HDEL', K.step(root, id), 'u')
        unlist(name, queue, lane)
      else
        count_line(queue, lane, -1)
      end
      return found(true)
    end
  end
end

local function take_itself(name, root, id, generation, queue, lane, suspect)
  local rec = K.step(root, id)
  local message = message_of(root, id, generation, take_kept(root, id))
  -- What was killed for its hard limit went back into its line, its deaths notwithstanding.
  if suspect and redis.call('HGET', rec, 'ov') == '1' then
    pull_line(WAY, queue, lane, redis.call('HGET', rec, 'tn') or '', name)
  end
  if suspect then accept_suspect(queue, lane, message, rec) else accept(queue, lane, message) end
  redis.call('HDEL', rec, 'u')
  unlist(name, queue, lane)
end

-- A hint says that something waits in its lane; what is taken for it is whose turn it is there, be it another step, whose
-- own hint serves for this one then. Suspects stand in no line: they come by their names.
local function take_hinted(name, queue, lane)
  local root, id, generation = string.match(name, '^([^|]+)|([^|]+)|(%d+)$')
  if not root then return end
  local rec = K.step(root, id)
  local f = redis.call('HMGET', rec, 's', 'g', 'q', 'l', 'd', 'ss', 'hd')
  local waits = f[1] == 'q' and f[2] == generation and redis.call('EXISTS', K.message(root, id)) == 1
  local suspect = waits and tonumber(f[5] or 0) > 0
  if suspect and fits(rec) then return take_itself(name, root, id, generation, f[3], f[4], true) end
  local others = waits and f[7] and is_left_to_others(root, id, rec, worker, now)
  if suspect or others or slots <= 0 then
    if suspect and not idle and is_freeing(f[3], f[6]) then out[1] = 2 end
    -- The hint is used up for nothing: the broker is to hear of it again soon, also of one that served for another step.
    if f[1] then redis.call('ZADD', K.unsent(), ms_text(now + 500), name) end
    if waits then redis.call('HDEL', rec, 'u') end
    return
  end
  if not take_turn(queue, lane, name) and waits then take_itself(name, root, id, generation, f[3], f[4], false) end
end

local warm, mine = {}, ''
if not SPLIT and redis.call('EXISTS', K.warm()) == 1 then
  warm, mine = redis.call('HGETALL', K.warm()), redis.call('HGET', K.warm(), worker) or ''
end

-- Whether the step is left to a worker that has open what it names: one is idle, and the step came only just now.
local function leave(queue, lane, message)
  local root, id = name_of(message)
  if #warm == 0 or not root then return false end
  local f = redis.call('HMGET', K.step(root, id), 'rs', 'sq', 'c', 'tn')
  if not f[1] or has_all(mine, f[1]) or now - tonumber(f[2] or f[3]) >= WARMTH_MS then return false end
  if #left >= warm_slots(worker, queue, f[1], warm, now) then return false end
  leave_there(queue, lane, f[4], message, true)
  return true
end

local before, queues = tonumber(c[6] or 0), {}
if not SPLIT then for i = FIRST_QUEUE, #ARGV do queues[#queues + 1] = ARGV[i] end end
if alone then slots = 0 end
if SPLIT then
  for i = FIRST_QUEUE, #ARGV, 3 do take_hinted(ARGV[i], ARGV[i + 1], ARGV[i + 2]) end
else
  for _, queue in ipairs(queues) do
    if count() == 0 and out[1] == 1 and most > 0 then take_suspects(queue) end
  end
  if out[1] == 2 then slots = 0 end
  serve(queues, slots, before, low, now, function(queue, lane, message)
    return not leave(queue, lane, message) and accept(queue, lane, message)
  end)
  -- Back in front, the oldest foremost. A hedge was told to others when it was queued: were it told again, this worker,
  -- which may not have it, would hear it first, again and again.
  for i = #left, 1, -1 do put_back(unpack(left[i], 1, 4)) end
  for _, entry in ipairs(left) do if entry[5] then ring(entry[1]) end end
end
redis.call('HSET', card, 'token', token, 'first', first, 'end', last, 'last', last, 'takes', before + count())
if alone and count() > 0 then redis.call('HSET', card, 'alone', first .. '|' .. last) end
if stopped > MOST_ASIDE then for _, queue in ipairs(queues) do ring(queue) end end
if slots > 0 and not SPLIT and #left == 0 and stopped <= MOST_ASIDE then
  -- Every lane was looked at to its end: what rang before is answered, and must not wake anybody for nothing.
  for _, queue in ipairs(queues) do redis.call('DEL', K.bell(queue)) end
end
-- What was held back comes in as soon as workers run dry, at the latest with the next tick.
if SPLIT or slots > 0 then refill(100, now) end
-- A consumer that keeps no lease (a plain kombu one) is given up after an hour without a take, as in stock kombu.
if redis.call('HEXISTS', card, 'since') == 0 then
  redis.call('ZADD', K.workers(), now + 3600000, worker)
  redis.call('PEXPIRE', card, 7200000)
end
return out
