-- The end of a step: its record, what its parent's log hears, its place in its join.
-- include: stop

local ENTRY_STATUS = { FAILURE = 'error', REVOKED = 'revoked' }

-- inside: an agent has ended by itself, and has said what it leaves open; else all of that ends with it. silent: its join
-- hears of another step in its place.
local function finish(root, id, status, entry, error, now, inside, silent)
  local rec = K.step(root, id)
  local f = redis.call('HMGET', rec, 'pr', 'ak', 'jr', 'jn', 'ji', 'tr', 'k', 'pl', 'dl', 'un')
  redis.call('HSET', rec, 's', 'd', 'o', status, 'f', ms_text(now))
  redis.call('HDEL', rec, 'sw', 'tr', 'e', 'dl', 'un', 'gu')
  -- An agent's is kept: a fork of the run begins with it.
  if f[7] == 'a' and not inside and status ~= 'SUCCESS' then
    redis.call('SADD', K.cancelled(root), id)
    unwind(root, id)
  end
  -- What stands in its line may go to its end.
  if f[7] == 'a' then end_stop(root, id, rec, now) end
  -- What its budget still asks nobody need answer any more.
  if id == root and f[7] == 'a' and inside and redis.call('HEXISTS', K.tree(root), 'asked') == 1 then unwind(root, id) end
  if f[7] ~= 'a' then
    forget_kept(root, id)
    if f[8] then adopt_arguments(root, rec, nil) end
  end
  if f[9] then
    redis.call('DEL', K.letter(id))
    redis.call('ZREM', K.letters(), id)
  end
  if f[10] then redis.call('ZREM', K.unserved(), root .. '|' .. id) end
  if error then redis.call('HSET', rec, 'e', error) end
  if f[1] or f[7] == 'a' then note_step(root, rec, id, 'finished', now, { o = status, error = error }) end
  if f[1] and f[2] and entry then tell(root, f[1], entry, now) end
  if f[3] and f[4] and not silent then arrive(f[3], f[4], f[5], status == 'SUCCESS', now) end
  if f[6] then leave_tree(f[6]) end
  leave_tree(root)
end

-- The error's wire form in Celery's meta of a failure: our own error's, else the one of a failed step.
local function error_in(result, id, name)
  if type(result) ~= 'table' then result = {} end
  if type(result.agentq) == 'table' then return result.agentq end
  local words = {}
  for _, word in ipairs(type(result.exc_message) == 'table' and result.exc_message or {}) do
    words[#words + 1] = tostring(word)
  end
  local said = type(result.exc_message) == 'string' and result.exc_message or table.concat(words, ' ')
  local fields = { step = name, step_id = id, error_type = result.exc_type or 'Error', message = said,
    details = cjson.null }
  return { code = 'step_failed', fields = fields }
end

-- A replaced step whose successors failed before one of them carried its id on: Celery writes the failure under its id.
-- told: the asks that the failing attempt has told of by itself.
local function finish_replaced(root, id, text, told, now)
  local meta = cjson.decode(text)
  local status = ENTRY_STATUS[meta.status]
  if not status then return end
  local f = redis.call('HMGET', K.step(root, id), 'ak', 'nm')
  local entry = nil
  if f[1] and not told[f[1]] then
    entry = cjson.encode({ k = 'result', id = f[1], s = status, v = error_in(meta.result, id, f[2]) })
  end
  finish(root, id, meta.status, entry, nil, now)
end

-- Closes the asks that are still open.
local function close_asks(root, asks)
  for _, ask in ipairs(asks or {}) do
    if redis.call('HGET', K.ask(root, ask), 's') == 'open' then
      redis.call('HSET', K.ask(root, ask), 's', 'closed')
      redis.call('ZREM', K.asks(), root .. '|' .. ask)
    end
  end
end
