-- commit: an attempt's outcome, with all that follows from it, at once.
-- include: common tree offer join
-- ARGV: JSON header {root, id, worker, take, token, mode, status, error?, usage?, parent entry?, closes?, cancels?}
--         mode: 'done', 'again' (the first offer is this step's next generation), 'replaced' (another will carry its id)
--       number of results; per result: task id, Celery's meta as JSON
--       number of joins; per join: JSON header, body message or ''
--       number of offers; per offer: JSON header, message
--       number of arrivals; per arrival: root, join id, index, 1 succeeded | 0 failed
-- Reply: {1} committed (also when asked again with the same token); {0, state, worker, take} another holds it
-- Keeps: one commit per step (2); results, onward messages, joins and the parent's wake are one instant (1, 4, 5).
local h = cjson.decode(ARGV[1])
local now = now_ms()
local rec = K.step(h.root, h.id)
local f = redis.call('HMGET', rec, 's', 'w', 't', 'tok', 'pr', 'ak', 'jr', 'jn', 'ji', 'g', 'k')
if f[4] == h.token then return { 1 } end
if f[1] ~= 'h' or f[2] ~= h.worker or f[3] ~= tostring(h.take) then
  return { 0, f[1] or '', f[2] or '', f[3] or '' }
end
redis.call('HDEL', K.held(h.worker), h.take)
redis.call('HSET', rec, 'tok', h.token)

local at = 1
local function following() at = at + 1 return ARGV[at] end

for _ = 1, tonumber(following()) do
  local id, meta = following(), following()
  local key = K.result(id)
  redis.call('SET', key, meta)
  redis.call('PUBLISH', key, meta)
  -- An outcome written for a task that has no record (a chain's later element after a failure) belongs to no tree.
  if id ~= h.id and redis.call('EXISTS', K.step(h.root, id)) == 0 then
    redis.call('PEXPIRE', key, RETENTION_MS)
  end
end

for _ = 1, tonumber(following()) do
  local j = cjson.decode(following())
  local message = following()
  if message ~= '' then j.message = message end
  if redis.call('EXISTS', K.join(j.root, j.id)) == 0 then
    if j.body then enter_tree(j.root) end
    make_join(j)
  end
end

local offers = tonumber(following())
for i = 1, offers do
  local o, rest = cjson.decode(following()), following()
  if h.mode == 'again' and i == 1 then
    local generation = tonumber(f[10]) + 1
    redis.call('HSET', rec, 'g', generation, 'q', o.q, 'l', o.l)
    place(h.root, h.id, rec, o.q, o.l, generation, rest, o.due, now)
    note_step(h.root, rec, h.id, 'retrying', now, { error = h.error, due = o.due and ms_text(o.due) or nil })
  else
    offer_one(o, rest, now)
  end
end
if h.mode == 'replaced' then redis.call('HSET', rec, 's', 'r') end

for _ = 1, tonumber(following()) do
  local root, id, index, succeeded = following(), following(), following(), following()
  arrive(root, id, index, succeeded == '1', now)
end

if h.usage then
  local tree = K.tree(h.root)
  for name, amount in pairs(h.usage) do redis.call('HINCRBY', tree, 'n_' .. name, string.format('%.0f', amount)) end
end
if h.mode ~= 'done' then return { 1 } end

redis.call('HSET', rec, 's', 'd', 'o', h.status, 'f', ms_text(now))
redis.call('HDEL', rec, 'm', 'sw')
if h.error then redis.call('HSET', rec, 'e', h.error) end
for _, ask in ipairs(h.closes or {}) do
  if redis.call('HGET', K.ask(h.root, ask), 's') == 'open' then
    redis.call('HSET', K.ask(h.root, ask), 's', 'closed')
    redis.call('ZREM', K.asks(), h.root .. '|' .. ask)
  end
end
for _, child in ipairs(h.cancels or {}) do
  call_off(h.root, child, 'its parent ended', now)
end
note_step(h.root, rec, h.id, 'finished', now, { o = h.status, error = h.error })
if f[5] and f[6] and h.entry then tell(h.root, f[5], h.entry, now) end
if f[7] and f[8] then arrive(f[7], f[8], f[9], h.status == 'SUCCESS', now) end
leave_tree(h.root)
return { 1 }
