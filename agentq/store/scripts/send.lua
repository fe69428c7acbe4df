-- send: what an agent's turn asks for and has done in place, in one batch.
-- include: common tree offer join refuse finish stop own
-- ARGV: JSON header {root, id, worker, take, token, seen, payloads?, tick?, closes?, cancels?, usage?, accounts?, stop?, next?}
--         stop: {why, rule}, when a rule has found the run to be a zombie
--         next: with what the turn's own slot goes on, see own; then there is one offer
--       number of asks; per ask: its entry as JSON
--       number of joins; per join: JSON header, body message or ''
--       number of offers; per offer: JSON header, message
--       number of questions; per question: JSON {id, run, q, schema?}
--       number of results; per result: its entry as JSON without its time
--       number of events; per event: JSON object without its time
-- Reply: {1, entries of the log from `seen` on…}, with next {1, what was taken, as take_next has it, entries…}; {0, state,
--        worker, take} when another holds the run, or the worker was marked dead; {2} the run stands still: what it asks
--        for is recorded, to be sent when it goes on, and it is nobody's any more
-- Keeps: a stale turn can dispatch nothing and record nothing (2); asks, their records and messages are one instant
--   (1); a step over the tree's budget is not sent: its refusal is an input like any other (7, 11).
local h = cjson.decode(ARGV[1])
local rec = K.step(h.root, h.id)
local log = K.log(h.root, h.id)
local f = redis.call('HMGET', rec, 's', 'w', 't', 'tok', 'nm')
if f[1] ~= 'h' or f[2] ~= h.worker or f[3] ~= tostring(h.take) then
  if f[4] == h.token and f[1] == 'l' then return { 2 } end
  return { 0, f[1] or '', f[2] or '', f[3] or '' }
end
-- The survivors are about to give this turn to another: what it sends now, its successor would not know in time.
if redis.call('EXISTS', K.dead(h.worker)) == 1 then return { 0, 'dead', '', '' } end

local function reply(taken)
  local tail = redis.call('LRANGE', log, h.seen, -1)
  if h.next then table.insert(tail, 1, taken or next_again(h.worker, h.next.seat, h.token)) end
  table.insert(tail, 1, 1)
  return tail
end
if f[4] == h.token then return reply() end

local now = now_ms()
redis.call('HSET', rec, 'tok', h.token, 'd', 0)
local at, own = 1, nil
local function following() at = at + 1 return ARGV[at] end

if h.stop then begin_stop(h.root, h.id, rec, h.stop, now) end
local stopped = stopped_above(h.root, h.id, rec)

for _ = 1, tonumber(following()) do
  local ask = following()
  local kind = string.match(ask, '"kind":"(%a+)"')
  -- As a fork has it from its origin: it stands asked, and the next turn sends it.
  if stopped and kind ~= 'local' and kind ~= 'emit' then ask = string.sub(ask, 1, -2) .. ',"again":1}' end
  redis.call('RPUSH', log, ask)
end
-- A fan-out that is wider than the budget allows is refused as a whole.
local too_wide = {}
local function is_too_wide(j)
  local short = h.accounts and j.pr and first_short(opened_accounts(h.root, h.accounts, now), { width = j.size }, now)
  if not short or short.limit ~= 'width' then return false end
  too_wide[j.id] = true
  local refusal = { k = 'result', id = j.id, s = 'error', v = refusal_by(short) }
  redis.call('RPUSH', log, stamped(cjson.encode(refusal), now))
  return true
end
for _ = 1, tonumber(following()) do
  local j, body = cjson.decode(following()), following()
  if not stopped and not is_too_wide(j) then open_join(j, body, now) end
end
local asked = {}
-- Its ring is taken back when the turn takes it: it must be the queue's.
CALL.own = h.next
for _ = 1, tonumber(following()) do
  local o, rest = cjson.decode(following()), following()
  if not stopped and not too_wide[o.jn or o.jo] then
    offer_or_refuse(o, rest, log, now)
    asked[o.q] = (asked[o.q] or 0) + 1
    own = o
  end
end
-- By these the pools know what the agents that run now will ask for next.
for queue, count in pairs(asked) do redis.call('HINCRBY', K.pace(queue), '>' .. (f[5] or ''), count) end
for _ = 1, tonumber(following()) do
  local text = following()
  local q = cjson.decode(text)
  local key = K.ask(h.root, q.id)
  if not stopped and redis.call('EXISTS', key) == 0 then
    redis.call('HSET', key, 's', 'open', 'c', ms_text(now), 'card', text)
    redis.call('ZADD', K.asks(), now, h.root .. '|' .. q.id)
    enlist(h.root, 'q', q.id)
    note(h.root, cjson.encode({ e = 'asked', r = h.id, s = q.id, n = q.q }), now)
  end
end
for _, name in ipairs(h.payloads or {}) do adopt(h.root, name) end
for _ = 1, tonumber(following()) do redis.call('RPUSH', log, stamped(following(), now)) end
for _ = 1, tonumber(following()) do note(h.root, following(), now) end
if h.tick then redis.call('RPUSH', log, stamped('{"k":"tick"}', now)) end
close_asks(h.root, h.closes)
for _, child in ipairs(h.cancels or {}) do call_off(h.root, child, 'its parent cancelled the call', now) end
spend(h.root, h.usage, h.accounts, now)
if stopped then
  local _, _, message = parts_of(redis.call('HGET', K.held(h.worker), h.take))
  redis.call('HDEL', K.held(h.worker), h.take)
  redis.call('DEL', K.wake(h.root, h.id))
  redis.call('HDEL', rec, 'ov', 'hb')
  set_aside(h.root, h.id, rec, redis.call('HINCRBY', rec, 'g', 1), rest_of(message), stopped)
  return { 2 }
end
if not h.next then return reply() end
-- What rang for the run until now is told by this reply.
redis.call('DEL', K.wake(h.root, h.id))
return reply(take_own(h.worker, h.token, h.next, own, now))
