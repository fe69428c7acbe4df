-- Which of two steps answers, where one is the other's hedge: the first that succeeds, or else the last that ends. All that
-- follows from a step's end follows from the one that answers, once; of the other one only its own end is written.
-- include: hedging

-- A time that the step took, for its quantiles. Of more than a thousand each counts half from then on.
local function note_span(name, took)
  local key = K.spans(redis.sha1hex(name))
  redis.call('HINCRBY', key, math.floor(SPAN_SHARES * math.log(math.max(took, 1)) / math.log(2)), 1)
  redis.call('PEXPIRE', key, 30 * 86400000)
  if redis.call('HINCRBY', key, 'n', 1) <= 1000 then return end
  local flat, total = redis.call('HGETALL', key), 0
  for i = 1, #flat, 2 do
    local half = math.floor(tonumber(flat[i + 1]) / 2)
    if tonumber(flat[i]) then
      total = total + half
      if half > 0 then redis.call('HSET', key, flat[i], half) else redis.call('HDEL', key, flat[i]) end
    end
  end
  redis.call('HSET', key, 'n', total)
end

-- An attempt of a step that may get a hedge has ended: it gets none any more.
local function disarm_hedge(root, id, rec, hg, generation, begun, status, now)
  redis.call('ZREM', K.hedges(), root .. '|' .. id .. '|' .. generation)
  if status == 'SUCCESS' and begun and string.sub(hg, 1, 1) == 'p' then
    note_span(redis.call('HGET', rec, 'nm'), now - tonumber(begun))
  end
end

-- Whether a step that ends so answers for itself and for the other one, which then is not wanted any more.
local function answers_for_both(root, id, rec, other, status, now)
  if redis.call('HEXISTS', rec, 'aw') == 1 then return false end
  local its = K.step(root, other)
  local f = redis.call('HMGET', its, 's', 'hg', 'b', 'nm')
  local runs = f[1] and f[1] ~= 'd' and f[1] ~= 'x'
  if status == 'FAILURE' and runs then return false end
  if f[1] and f[1] ~= 'd' then
    redis.call('HSET', its, 'aw', id)
    -- A name that is no step's: who looks for what was cancelled finds that there is something.
    redis.call('SADD', K.cancelled(root), '=' .. other)
    if f[1] == 'l' then end_wait(root, other, its, now) end
  end
  if status == 'SUCCESS' then
    note_step(root, rec, id, 'won', now, { over = other })
    -- The second has won: the first would have taken longer than this, and is never measured.
    if f[2] and f[3] and string.sub(f[2], 1, 1) == 'p' then
      note_span(f[4], now - tonumber(f[3]))
      note_span(f[4], now - tonumber(redis.call('HGET', rec, 'b')))
    end
  end
  return true
end

-- The end of the one that does not answer, which its record says for who asks again. results: as the script was given them.
local function end_silently(h, rec, other, results, now)
  local its = K.step(h.root, other)
  local f = redis.call('HMGET', rec, 'hd', 'pl')
  redis.call('HSET', rec, 'si', 1)
  for at = 3, 1 + 2 * tonumber(results[2]), 2 do
    local id, meta = results[at], results[at + 1]
    -- Who asks for the first by its id hears the answer; of a failure nothing, while the second may still succeed.
    if id == h.id and (f[1] or h.status == 'REVOKED') and (f[1] or redis.call('EXISTS', K.result(id)) == 0) then
      redis.call('SET', K.result(id), meta)
      redis.call('PUBLISH', K.result(id), meta)
    end
  end
  -- The arguments that both have stay for the one that goes on.
  if f[2] and redis.call('HGET', its, 's') ~= 'd' then
    redis.call('HDEL', rec, 'pl')
    redis.call('HSET', its, 'pl', f[2])
  end
  spend(h.root, h.usage, h.accounts, now)
  finish(h.root, h.id, h.status, nil, h.error, now, nil, true)
end
