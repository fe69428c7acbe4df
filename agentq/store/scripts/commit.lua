-- commit: an attempt's outcome, with all that follows from it, at once.
-- include: common tree offer join refuse finish cancel pace gates going_on answering
-- ARGV: JSON header {root, id, worker, take, token, mode, status, error?, changed?, usage?, accounts?, m?, entry?, tells?, inside?,
--           closes?, cancels?, idle?, ran?, next?, hears?}
--         mode: 'done', 'again' (the first offer is this step's next generation), 'replaced' (another will carry its id)
--         ran: for how many ms, where it was held for longer
--         idle: 1 with 'again': its function was not called, so this does not count as an attempt
--         entry: what the log of the step's own parent is told; tells: [run, entry]… for other runs of the tree
--         usage: what was spent, on the tree and on the accounts; m: {ok?, tokens?}, how what was reserved is settled
--         next: with what the worker goes on at once, see going_on
--         hears: {root, run, seen, worker, take}, the log of the turn in whose slot this runs, and that turn
--       number of results; per result: task id, Celery's meta as JSON
--       number of joins; per join: JSON header, body message or ''
--       number of offers; per offer: JSON header, message
--       number of arrivals; per arrival: root, join id, index, 1 succeeded | 0 failed
-- Reply: {1} committed (also when asked again with the same token); {1, (take, queue, flags, message)…} committed, and
--        the next ones taken, flags as in take; {1, {entries of that log from `seen` on…}} with hears, where it is done;
--        {0, state, worker, take} another holds it;
--        {2} nobody wants the step any more: nothing was written, and REVOKED is the only outcome that it may have;
--        {3} committed, and answers nothing: another step answers for both
-- Keeps: the rule and 1 as take does; one commit per step (2); results, onward messages, joins and the parent's wake are one
--   instant (1, 4, 5).
-- Full server: runs, what is in custody can end.
local h = cjson.decode(ARGV[1])
local now = now_ms()
local rec = K.step(h.root, h.id)
local f = redis.call('HMGET', rec, 's', 'w', 't', 'tok', 'g', 'k', 'q', 'b', 'gd', 'nm', 'hg', 'tw')
local function heard()
  if not h.hears then return { 1 } end
  return { 1, redis.call('LRANGE', K.log(h.hears.root, h.hears.run), h.hears.seen, -1) }
end
if f[4] == h.token then
  if h.next then return next_again(h.worker, h.next.seat, h.token) end
  return redis.call('HEXISTS', rec, 'si') == 1 and { 3 } or heard()
end
if f[1] ~= 'h' or f[2] ~= h.worker or f[3] ~= tostring(h.take) then
  return { 0, f[1] or '', f[2] or '', f[3] or '' }
end
-- Its agent may have ended already; a result now would go on to what nobody waits for.
if h.status ~= 'REVOKED' and is_cancelled(h.root, h.id, rec) then return { 2 } end
if f[6] == 'a' and h.mode == 'done' then
  local _, _, message = parts_of(redis.call('HGET', K.held(h.worker), h.take))
  keep(h.root, h.id, rest_of(message))
end
redis.call('HDEL', K.held(h.worker), h.take)
note_pace(f[7], f[10], h.ran and now - h.ran or f[8], h.take, now, h.status == 'FAILURE' or (h.error and not h.idle), h.usage and h.usage.tokens, h.mode == 'done')
redis.call('HSET', rec, 'tok', h.token, 'd', 0)
if f[9] then
  redis.call('HDEL', rec, 'gd')
  settle_guards(h.root, h.id, f[9], h.m or {}, now)
end

if f[11] then disarm_hedge(h.root, h.id, rec, f[11], f[5], f[8], h.status, now) end
if f[12] and h.mode ~= 'again' and not answers_for_both(h.root, h.id, rec, f[12], h.status, now) then
  end_silently(h, rec, f[12], ARGV, now)
  return h.next and take_next(h.worker, h.token, h.next, now) or { 3 }
end

local at = 1
local function following() at = at + 1 return ARGV[at] end

local replaced = {}
for _ = 1, tonumber(following()) do
  local id, meta = following(), following()
  local key = K.result(id)
  local state = id == h.id and 'h' or redis.call('HGET', K.step(h.root, id), 's')
  -- Celery marks what stands behind a failed task as failed too; an outcome that is there already stays.
  if state ~= 'd' or id == f[12] then
    redis.call('SET', key, meta)
    redis.call('PUBLISH', key, meta)
    -- What has no record (a chain's later element after a failure) belongs to no tree.
    if not state then redis.call('PEXPIRE', key, RETENTION_MS) end
    if state == 'r' then replaced[id] = meta end
  end
end

for _ = 1, tonumber(following()) do
  local j = cjson.decode(following())
  open_join(j, following(), now)
end

local offers = tonumber(following())
for i = 1, offers do
  local o, rest = cjson.decode(following()), following()
  if h.mode == 'again' and i == 1 then
    local generation = tonumber(f[5]) + 1
    redis.call('HSET', rec, 'g', generation, 'q', o.q, 'l', o.l)
    redis.call('HDEL', rec, 'ov')
    adopt_arguments(h.root, rec, o.pl)
    become(o, rec, now)
    if h.error then redis.call('HSET', rec, 'e', h.error) end
    if h.idle then redis.call('HINCRBY', rec, 'a', -1) end
    local due = due_of(o, now)
    place(h.root, h.id, rec, o.q, o.l, generation, rest, due, now)
    note_step(h.root, rec, h.id, 'retrying', now, { error = h.error, changed = h.changed, due = due and ms_text(due) or nil })
  elseif f[6] == 'i' and o.jn then
    -- A member of a large fan-out: what its agent's send would refuse in a small one is refused here.
    offer_or_refuse(o, rest, nil, now)
  else
    offer_one(o, rest, now)
  end
end
if h.mode == 'replaced' then
  redis.call('HSET', rec, 's', 'r')
  -- What carries it on is another step.
  redis.call('HDEL', rec, 'hg', 'tw')
end

for _ = 1, tonumber(following()) do
  local root, id, index, succeeded = following(), following(), following(), following()
  arrive(root, id, index, succeeded == '1', now)
end

spend(h.root, h.usage, h.accounts, now)
if h.usage and h.usage.tokens then
  -- The agent hears what the members of its fan-out have used when the join is released.
  local j = redis.call('HMGET', rec, 'jr', 'jn')
  if j[2] then redis.call('HINCRBY', K.join(j[1], j[2]), 'u', h.usage.tokens) end
end
local told = {}
for _, pair in ipairs(h.tells or {}) do
  told[cjson.decode(pair[2]).id or ''] = true
  tell(h.root, pair[1], pair[2], now)
end
for id, meta in pairs(replaced) do finish_replaced(h.root, id, meta, told, now) end
if h.mode ~= 'done' then return { 1 } end

close_asks(h.root, h.closes)
for _, child in ipairs(h.cancels or {}) do call_off(h.root, child, 'its parent ended', now) end
-- That turn needs no bell: it reads of it in this reply. Who has the run since it was given back a moment before does.
CALL.hears = h.hears
finish(h.root, h.id, h.status, h.entry, h.error, now, h.inside)
return h.next and take_next(h.worker, h.token, h.next, now) or heard()
