-- Claiming: a message that waits becomes a worker's, under a take number that no other attempt of that worker has.

-- What the taker has to do instead of running it: end a cancelled step, or one whose last attempt passed its hard limit.
local function flag_of(root, id, rec)
  if is_cancelled(root, id, rec) then return 1 end
  return redis.call('HEXISTS', rec, 'ov') == 1 and 2 or 0
end

-- Whether the record agrees to the message; then this worker is its holder. Returns the flags, nil when it does not.
local function claim(worker, label, take, queue, lane, message, now)
  local root, id, generation = name_of(message)
  local flags = 0
  if root then
    local rec = K.step(root, id)
    local f = redis.call('HMGET', rec, 's', 'g')
    if f[1] ~= 'q' or f[2] ~= generation then return nil end
    redis.call('HSET', rec, 's', 'h', 'w', worker, 't', take, 'wl', label, 'b', ms_text(now))
    redis.call('HINCRBY', rec, 'a', 1)
    flags = flag_of(root, id, rec)
    note_step(root, rec, id, 'started', now)
  end
  redis.call('HSET', K.held(worker), take, entry_of(queue, lane, message))
  return flags
end

-- Lanes in the order in which they are looked at: every N-th time from the lowest on, so that it does not starve.
local function lanes_in_turn(turn, low)
  return low > 0 and turn % low == 0 and { 9, 6, 3, 0 } or { 0, 3, 6, 9 }
end
