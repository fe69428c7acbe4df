-- The end of a step: its record, what its parent's log hears, its place in its join.

local ENTRY_STATUS = { FAILURE = 'error', REVOKED = 'revoked' }

local function finish(root, id, status, entry, error, now)
  local rec = K.step(root, id)
  local f = redis.call('HMGET', rec, 'pr', 'ak', 'jr', 'jn', 'ji', 'tr')
  redis.call('HSET', rec, 's', 'd', 'o', status, 'f', ms_text(now))
  redis.call('HDEL', rec, 'm', 'sw', 'tr')
  if error then redis.call('HSET', rec, 'e', error) end
  note_step(root, rec, id, 'finished', now, { o = status, error = error })
  if f[1] and f[2] and entry then tell(root, f[1], entry, now) end
  if f[3] and f[4] then arrive(f[3], f[4], f[5], status == 'SUCCESS', now) end
  if f[6] then leave_tree(f[6]) end
  leave_tree(root)
end

-- A replaced step whose successors failed before one of them carried its id on: Celery writes the failure under its id.
local function finish_replaced(root, id, meta, now)
  local status = cjson.decode(meta).status
  if not ENTRY_STATUS[status] then return end
  local ask = redis.call('HGET', K.step(root, id), 'ak')
  local entry = ask and cjson.encode({ k = 'result', id = ask, s = ENTRY_STATUS[status], ref = 1 })
  finish(root, id, status, entry, nil, now)
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

local function spend(root, usage)
  for name, amount in pairs(usage or {}) do
    redis.call('HINCRBY', K.tree(root), 'n_' .. name, string.format('%.0f', amount))
  end
end
