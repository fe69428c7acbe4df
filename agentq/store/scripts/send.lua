-- send: what an agent's turn asks for and has done in place, in one batch.
-- include: common tree offer join
-- ARGV: JSON header {root, id, worker, take, token, seen, tick?, closes?, cancels?, usage?}
--       number of asks; per ask: its entry as JSON
--       number of joins; per join: JSON header, body message or ''
--       number of offers; per offer: JSON header, message
--       number of questions; per question: JSON {id, run, q, schema?}
--       number of results; per result: its entry as JSON without its time
--       number of events; per event: JSON object without its time
-- Reply: {1, entries of the log from `seen` on…}; {0, state, worker, take} when another holds the run
-- Keeps: a stale turn can dispatch nothing and record nothing (2); asks, their records and messages are one instant
--   (1); a step over the tree's budget is not sent: its refusal is an input like any other (7, 11).
local h = cjson.decode(ARGV[1])
local rec = K.step(h.root, h.id)
local log = K.log(h.root, h.id)
local f = redis.call('HMGET', rec, 's', 'w', 't', 'tok')
if f[1] ~= 'h' or f[2] ~= h.worker or f[3] ~= tostring(h.take) then
  return { 0, f[1] or '', f[2] or '', f[3] or '' }
end

local function reply()
  local tail = redis.call('LRANGE', log, h.seen, -1)
  table.insert(tail, 1, 1)
  return tail
end
if f[4] == h.token then return reply() end

local now = now_ms()
redis.call('HSET', rec, 'tok', h.token, 'd', 0)
local at = 1
local function following() at = at + 1 return ARGV[at] end

for _ = 1, tonumber(following()) do redis.call('RPUSH', log, following()) end
for _ = 1, tonumber(following()) do
  local j = cjson.decode(following())
  following()
  make_join(j)
end
for _ = 1, tonumber(following()) do
  local o, rest = cjson.decode(following()), following()
  local limit, allowed, used = exceeded(h.root, now)
  if limit then
    local refusal = { code = 'budget_exceeded', fields = { limit_name = limit, limit = allowed, used = used } }
    if o.ak then
      redis.call('RPUSH', log, stamped(cjson.encode({ k = 'result', id = o.ak, s = 'error', v = refusal }), now))
    else
      local meta = cjson.encode({ status = 'FAILURE', task_id = o.id, children = {}, traceback = cjson.null,
        result = { exc_type = 'BudgetExceeded', exc_module = 'agentq.core.errors', exc_message = { limit },
          agentq = refusal } })
      redis.call('SET', K.result(o.id), meta, 'PX', RETENTION_MS)
      arrive(o.jr, o.jn, o.ji, false, now)
    end
  else
    offer_one(o, rest, now)
  end
end
for _ = 1, tonumber(following()) do
  local text = following()
  local q = cjson.decode(text)
  local key = K.ask(h.root, q.id)
  if redis.call('EXISTS', key) == 0 then
    redis.call('HSET', key, 's', 'open', 'c', ms_text(now), 'card', text)
    redis.call('ZADD', K.asks(), now, h.root .. '|' .. q.id)
    enlist(h.root, 'q', q.id)
    note(h.root, cjson.encode({ e = 'asked', r = h.id, s = q.id, n = q.q }), now)
  end
end
for _ = 1, tonumber(following()) do redis.call('RPUSH', log, stamped(following(), now)) end
for _ = 1, tonumber(following()) do note(h.root, following(), now) end
if h.tick then redis.call('RPUSH', log, stamped('{"k":"tick"}', now)) end
for _, ask in ipairs(h.closes or {}) do
  if redis.call('HGET', K.ask(h.root, ask), 's') == 'open' then
    redis.call('HSET', K.ask(h.root, ask), 's', 'closed')
    redis.call('ZREM', K.asks(), h.root .. '|' .. ask)
  end
end
for _, child in ipairs(h.cancels or {}) do
  call_off(h.root, child, 'its parent cancelled the call', now)
end
if h.usage then
  for name, amount in pairs(h.usage) do
    redis.call('HINCRBY', K.tree(h.root), 'n_' .. name, string.format('%.0f', amount))
  end
end
return reply()
