-- Suspects: steps whose last attempt died. They wait apart, for a worker that is idle and takes nothing else meanwhile,
-- so that the next death says who is to blame (invariant 9).

-- Lane, message and age of an entry; nothing for none. It is text: since when it waits, its lane, the message.
local function suspect_at(entry)
  if not entry then return nil end
  local since, lane, message = string.match(entry, '^(%d+)\n(%d+)\n(.*)$')
  return lane, message, since
end

-- In split mode the broker names them like any other step, and who may not take one lets it wait.
local function suspect(root, id, rec, queue, lane, generation, rest, now)
  if SPLIT then
    -- It stands in no line, or it would be given to whoever comes first.
    redis.call('HSET', rec, 's', 'q', 'sq', ms_text(now), 'ss', ms_text(now))
    redis.call('SET', K.message(root, id), rest)
    list_unsent(root .. '|' .. id .. '|' .. generation, queue, lane, now)
    return
  end
  redis.call('HSET', rec, 's', 'q', 'sq', ms_text(now))
  local key, since = K.suspects(queue), ms_text(now)
  local _, _, oldest = suspect_at(redis.call('LINDEX', key, -1))
  -- What a worker held is given back from the last take to the first, which goes in front again.
  redis.call(oldest == since and 'RPUSH' or 'LPUSH', key,
    since .. '\n' .. lane .. '\n' .. message_of(root, id, generation, rest))
  ring(queue)
end

-- Puts a step back where it may be taken: among the suspects as long as a death stands to its account.
local function place_again(root, id, rec, queue, lane, generation, rest, now, front)
  if tonumber(redis.call('HGET', rec, 'd') or 0) > 0 then
    suspect(root, id, rec, queue, lane, generation, rest, now)
  else
    place(root, id, rec, queue, lane, generation, rest, nil, now, front)
  end
end

-- How many of the suspects that a worker took together it still holds; 0 when it took none, or has ended them.
local function count_alone(worker)
  local first, last = string.match(redis.call('HGET', K.worker(worker), 'alone') or '', '^(%d+)|(%d+)$')
  local n = 0
  if first then
    for take = tonumber(first), tonumber(last) do n = n + redis.call('HEXISTS', K.held(worker), take) end
  end
  return n
end

-- How many ran together when a worker died; asked again while its holdings are released chunk by chunk, the same.
local function company_of(worker)
  local card = K.worker(worker)
  local known = redis.call('HGET', card, 'co')
  if known then return tonumber(known) end
  local n = count_alone(worker)
  if n == 0 then n = redis.call('HLEN', K.held(worker)) end
  redis.call('HSET', card, 'co', n)
  return n
end

-- A death goes to a step's account. Returns whether it was the last one that a step is given: only deaths alone count
-- towards that. Of those that died together at most half run together again, so that bystanders leave the poison soon
-- and a killed pool of many threads does not go on one by one.
local function blame(rec, company)
  if redis.call('HINCRBY', rec, 'd', 1) == 1 then redis.call('HDEL', rec, 'da') end
  redis.call('HSET', rec, 'co', math.max(math.floor(company / 2), 1))
  return company <= 1 and redis.call('HINCRBY', rec, 'da', 1) >= DEATH_LIMIT
end
