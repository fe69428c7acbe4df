-- admit: all guards of a step together, in front of its function: may this attempt go on now?
-- include: common tree offer suspects gates accounts
-- ARGV: JSON {root, id, worker, take, token, gates: [{d digest, k 'r' rate or limit | 'b' breaker, nm name, its settings}…],
--         c? {d digest, nm step name, sk? 1 what is kept is of no use, fr? 1 it need not wait for another that makes it},
--         accounts: [{k, x?, b?, nm?}…], want: {tokens?, usd_micro?, attempts?, steps?}, fb? 1 when the step has a fallback,
--         m? how what this attempt has reserved before ended: {ok?, tokens?, usage?}, sa? the accounts that it is charged to,
--         where nothing is asked of them; nw? 1: it does not wait, as a fallback that is called in the step's place}
-- Reply: {1} go; {2} it waits in a line, and is nobody's any more; {3, name, ms, k} a breaker is open, for a step with a
--        fallback, or what does not wait has no room; {4, refusal as JSON} a budget refuses it; {5, refusal as JSON} it is
--        to take its cheaper way; {6, value as JSON, tokens, micro-dollars} it was answered before: what that has saved;
--        {0, state, worker, take} another holds the step
-- Keeps: checked and reserved at once, so reserved never exceeds a limit (7); who waits holds no worker (6) and is in
--   custody (1), in the order of its first asking; an attempt that was not let through does not count as one (9). Of
--   cached steps with the same arguments one makes the answer, and it is never another tenant's: the digest holds it.
local h = cjson.decode(ARGV[1])
local now = now_ms()
local rec = K.step(h.root, h.id)
local f = redis.call('HMGET', rec, 's', 'w', 't', 'am', 'gd', 'wt', 'g', 'ov')
local again = f[4] and string.sub(f[4], 1, #h.token) == h.token and cjson.decode(string.sub(f[4], #h.token + 1))
-- What a cached step was answered with is not kept a second time; gone by now, it is asked for anew.
if again and again[1] ~= 6 then return again end
if f[1] ~= 'h' or f[2] ~= h.worker or f[3] ~= tostring(h.take) then
  return { 0, f[1] or '', f[2] or '', f[3] or '' }
end

local G = gates()
local want, accounts = h.want or {}, opened_accounts(h.root, h.accounts, now)
local tokens = want.tokens or 0

local function answer(reply)
  redis.call('HSET', rec, 'am', h.token .. cjson.encode(reply))
  return reply
end

-- What it holds already: a place that it was called to, or what an earlier try of this same attempt has reserved.
local called = nil
if f[5] then
  local before = cjson.decode(f[5])
  if before.gr then
    called = before.g[1]
    redis.call('ZREM', K.called(called.d), h.root .. '|' .. h.id)
  else
    redis.call('HDEL', rec, 'gd')
    -- Another try in place still makes the same answer: those who wait for it go on waiting.
    for i, entry in ipairs(before.g) do
      if h.c and entry.k == 'c' and entry.d == h.c.d then called = table.remove(before.g, i) break end
    end
    settle_guards(h.root, h.id, cjson.encode(before), h.m or {}, now)
    if h.m and h.m.usage then spend(h.root, h.m.usage, h.sa or h.accounts, now) end
  end
end

local function give_up_place()
  redis.call('HDEL', rec, 'gd')
  if called then G.settle_all(h.root, h.id, cjson.encode({ g = { called } }), { idle = true }, now) end
  called = nil
end

-- Its custody here ends; it goes on from the line of the gate that did not let it through.
local function wait_at(digest, g, why)
  local ticket = f[6] or redis.call('HINCRBY', K.ticks(), 'ticket', 1)
  local held = K.held(h.worker)
  local _, _, message = parts_of(redis.call('HGET', held, h.take))
  local generation = tonumber(f[7]) + 1
  redis.call('HDEL', held, h.take)
  redis.call('HSET', rec, 's', 'l', 'g', generation, 'wt', ticket, 'e', why)
  redis.call('HINCRBY', rec, 'a', -1)
  keep(h.root, h.id, rest_of(message))
  if not f[6] then note_step(h.root, rec, h.id, 'waiting', now, { error = why }) end
  local reply = answer({ 2 })
  give_up_place()
  G.queue(digest, g, h.root, h.id, rec, generation, tokens, ticket, now)
  return reply
end

-- A step that was over the number of steps when it was offered is counted now, if there is room by now.
local late = f[8] == 'b'
if late and redis.call('SISMEMBER', K.cancelled(h.root), h.id) == 1 then
  -- A sub-agent that was cancelled while it waited: it runs to see that, and does nothing else.
  redis.call('HDEL', rec, 'ov')
  return answer({ 1 })
end
if late then want.steps = 1 end

-- It was answered before: no attempt is made, and of its guards nothing is used.
local function answer_with(kept)
  if not again then
    redis.call('HINCRBY', rec, 'a', -1)
    -- It gets no hedge either, and its time is none of its function's.
    redis.call('ZREM', K.hedges(), h.root .. '|' .. h.id .. '|' .. f[7])
    local hedge = redis.call('HGET', rec, 'hg') or ''
    redis.call('HDEL', rec, 'wt', 'hg')
    if late then
      redis.call('HDEL', rec, 'ov')
      for _, account in ipairs(accounts) do reserve_at(account, { steps = 1 }) end
    end
    note_hit(h.root, h.c.nm, kept, 1)
    note_step(h.root, rec, h.id, 'cached', now, { tokens = kept.tk > 0 and kept.tk or nil })
    answer({ 6, kept.tk, kept.us, hedge })
  end
  give_up_place()
  -- Who waits for it need not wait until time looks.
  G.look(h.c.d, now)
  return { 6, kept.v, kept.tk, kept.us }
end

local kept = h.c and kept_answer(h.c.d, h.c.nm)
if kept and kept.v and not h.c.sk
  and not (late and first_short(accounts, { steps = 1, depth = want.depth }, now)) then
  return answer_with(kept)
end
-- It is gone since the first time of asking, or was of no use: the attempt, which was taken back, is made after all.
if again or (h.c and h.c.sk) then
  redis.call('HINCRBY', rec, 'a', 1)
  local hit = f[4] and cjson.decode(string.match(f[4], '%[.*$')) or {}
  -- It has saved nothing; what it takes is its function's time again, and another try of it may get a hedge.
  if hit[1] == 6 and hit[4] then
    note_hit(h.root, h.c.nm, { tk = hit[2], us = hit[3] }, -1)
    if hit[4] ~= '' then redis.call('HSET', rec, 'hg', hit[4]) end
  end
end
h.gates = h.gates or {}
-- For what is too large to be kept nobody waits.
if h.c and not (kept and not kept.v) then table.insert(h.gates, 1, { d = h.c.d, k = 'c', nm = h.c.nm, fr = h.c.fr }) end

local short = first_short(accounts, want, now)
if short then
  local refusal = cjson.encode(refusal_by(short))
  if is_left_to_admission(short) and short.account.x == 'ask' and not is_refused(short) then
    ask_to_raise(h.root, short, now)
    local g, digest = account_line(h.root, short.account)
    return wait_at(digest, g, 'it waits until a person raises the budget')
  end
  give_up_place()
  return answer({ is_left_to_admission(short) and short.account.x == 'degrade' and 5 or 4, refusal })
end

local opened = {}
for i, wish in ipairs(h.gates) do
  local g = G.open(wish, now)
  opened[i] = g
  if not (called and called.d == wish.d and G.still_holds(g, called)) then
    local fits, at = G.admits(wish.d, g, tokens, f[6], now)
    if wish.fr then fits = true end
    if not fits and (h.nw or (wish.k == 'b' and h.fb)) then
      give_up_place()
      return answer({ 3, wish.nm, math.max((at or now + 1000) - now, 1), wish.k })
    elseif not fits then
      local words = { b = 'breaker ', r = 'limit ', c = 'the same call of ' }
      return wait_at(wish.d, g, words[wish.k] .. wish.nm)
    end
  end
end

local reserved = { g = {}, a = {} }
for i, wish in ipairs(h.gates) do
  if called and called.d == wish.d and G.still_holds(opened[i], called) then
    reserved.g[#reserved.g + 1] = called
    called = nil
  else
    reserved.g[#reserved.g + 1] = G.reserve(wish.d, opened[i], tokens, now)
  end
end
give_up_place()
for _, account in ipairs(accounts) do reserved.a[#reserved.a + 1] = reserve_at(account, want) end
redis.call('HSET', rec, 'gd', cjson.encode(reserved))
if late or f[6] then redis.call('HDEL', rec, 'ov', 'wt') end
return answer({ 1 })
