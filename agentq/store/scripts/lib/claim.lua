-- Claiming: a message that waits becomes a worker's, under a take number that no other attempt of that worker has.
-- include: turns stop hedging

-- What the taker has to do instead of running it: end a cancelled step, or one whose last attempt passed its hard limit;
-- have one admitted first that its budget had no room for. mark: of its record.
local function flag_of(root, id, rec, mark)
  if is_cancelled(root, id, rec) then return 1 end
  return mark and (mark == 'b' and 8 or 2) or 0
end

-- Whether the record agrees to the message; then this worker is its holder. Returns the flags, nil when it does not, or when
-- the step's run stands still: then the second answer is true, and the step waits in that run's line; false when it is to
-- be left for others, which what must be taken now is not. f: what the caller has read of the record already, in the order
-- in which it is read here.
local function claim(worker, label, take, queue, lane, message, now, f, must)
  local root, id, generation = name_of(message)
  local flags = 0
  if root then
    local rec = K.step(root, id)
    f = f or redis.call('HMGET', rec, 's', 'g', 'a', 'ov', 'pr', 'k', 'hg', 'hd')
    if f[1] ~= 'q' or f[2] ~= generation then return nil end
    if f[8] and not must and is_left_to_others(root, id, rec, worker, now) then return false end
    flags = flag_of(root, id, rec, f[4])
    local stopped = flags ~= 1 and stopped_above(root, id, rec)
    if stopped then
      set_aside(root, id, rec, generation, rest_of(message), stopped)
      return nil, true
    end
    redis.call('HSET', rec, 's', 'h', 'w', worker, 't', take, 'wl', label, 'b', ms_text(now), 'a', (f[3] or 0) + 1)
    if f[7] then arm_hedge(root, id, rec, generation, f[7], now) end
    if f[5] or f[6] == 'a' then note_step(root, rec, id, 'started', now) end
  end
  redis.call('HSET', K.held(worker), take, entry_of(queue, lane, message))
  return flags
end

-- For how long the next one of a lane has waited; a plain message does not say.
local function age_of(queue, lane, now)
  local message = peek_line(WAY, queue, lane)
  local root, id = name_of(message or '')
  if not root then return 0 end
  local f = redis.call('HMGET', K.step(root, id), 'sq', 'c')
  return now - tonumber(f[1] or f[2] or now)
end

-- The lanes as their share goes to them: first what has waited too long, then from the lowest.
local function lower_lanes(queues, now)
  local oldest, longest = 9, AGE_MS
  for _, lane in ipairs({ 9, 6, 3 }) do
    for _, queue in ipairs(queues) do
      local age = age_of(queue, lane, now)
      if age > longest then oldest, longest = lane, age end
    end
  end
  return { oldest, 9, 6, 3, 0 }
end

-- Gives what waits in these queues' lanes to accept(queue, lane, message), which says whether it took it, until it took
-- `most`. The most urgent lane goes first, within one the tenants take turns; but every N-th (low) that this worker takes,
-- after as many as `before`, is the lower lanes'. Returns how many were taken: fewer than `most` when no more wait.
local function serve(queues, most, before, low, now, accept)
  -- Without tenants a lane is its list, and nothing else is looked at.
  local shared = redis.call('EXISTS', K.shared()) == 1
  local n = 0
  local function through(lanes, upto)
    for _, lane in ipairs(lanes) do
      for _, queue in ipairs(queues) do
        while n < upto do
          local message
          if shared then message = pop_line(WAY, queue, lane) else message = redis.call('RPOP', K.lane(queue, lane)) end
          if not message then break end
          if accept(queue, lane, message) then n = n + 1 end
        end
      end
    end
  end
  local share = low > 0 and math.floor((before + most) / low) - math.floor(before / low) or 0
  through({ 0, 3, 6, 9 }, most - share)
  -- Had they not been filled, nothing would be left for these.
  if share > 0 and n == most - share then through(lower_lanes(queues, now), most) end
  return n
end
