-- append: an input from outside to one run: a signal, an answer, a cancel.
-- include: common tree offer stop
-- ARGV: 'signal', root, run, token, name, payload as JSON, signal id
--       'answer', root, ask id, token, answer as JSON, who
--       'cancel', root, run, token, reason as a JSON string
--       'stop', root, run, token, JSON {why, rule}, entries of the log that who stops it has seen, -1: whatever it holds
--       'resume', root, run, token, JSON list of the rules that are not to stop it again, who
-- Reply: signal: 1 appended, 0 this id was seen before, -1 no such run, -2 the run has ended
--        answer: {1, answer} accepted, {0, answer that stands} decided before, {-1} no such ask, {-2} closed
--        cancel, stop, resume: 1, 0 asked before (it does not stand still), -1 no such run, -2 the run has ended; stop: -3
--        the log has grown
-- Keeps: a signal is an input once per id, early ones are kept (5); an ask has one decision; the same token gets the
--   same reply.
local what, root, token = ARGV[1], ARGV[2], ARGV[4]
local now = now_ms()

if what == 'answer' then
  local key = K.ask(root, ARGV[3])
  local f = redis.call('HMGET', key, 's', 'answer', 'card', 'tok')
  if not f[1] then return { -1 } end
  if f[1] == 'answered' then return { f[4] == token and 1 or 0, f[2] } end
  local card = cjson.decode(f[3])
  local run = card.run
  -- The ask of a run that was ended from outside (a hard limit) is still open on paper.
  if f[1] ~= 'open' or redis.call('HGET', K.step(root, run), 's') == 'd' then return { -2 } end
  redis.call('HSET', key, 's', 'answered', 'answer', ARGV[5], 'by', ARGV[6], 'at', ms_text(now), 'tok', token)
  redis.call('ZREM', K.asks(), root .. '|' .. ARGV[3])
  note(root, '{"e":"answered","r":' .. cjson.encode(run) .. ',"s":' .. cjson.encode(ARGV[3]) .. ',"by":'
    .. cjson.encode(ARGV[6]) .. '}', now)
  if card.bud then
    raise_limit(root, card.bud, ARGV[5], now)
    return { 1, ARGV[5] }
  end
  tell(root, run, '{"k":"answer","id":' .. cjson.encode(ARGV[3]) .. ',"v":' .. ARGV[5] .. '}', now)
  return { 1, ARGV[5] }
end

local run = ARGV[3]
local rec = K.step(root, run)
local f = redis.call('HMGET', rec, 's', 'sw', 'k', 'seg', 'ct')

if what == 'cancel' then
  if not f[1] or f[3] ~= 'a' then return -1 end
  if f[5] == token then return 1 end
  if f[1] == 'd' then return -2 end
  if redis.call('SADD', K.cancelled(root), run) == 0 then return 0 end
  redis.call('HSET', rec, 'ct', token)
  note(root, '{"e":"cancelling","r":' .. cjson.encode(run) .. ',"why":' .. ARGV[5] .. '}', now)
  tell(root, run, '{"k":"cancel","why":' .. ARGV[5] .. '}', now, true)
  return 1
end

if what == 'stop' or what == 'resume' then
  if not f[1] or f[3] ~= 'a' then return -1 end
  if f[5] == token then return 1 end
  if f[1] == 'd' then return -2 end
  if what == 'stop' then
    local seen = tonumber(ARGV[6])
    if seen >= 0 and redis.call('LLEN', K.log(root, run)) ~= seen then return -3 end
    if not begin_stop(root, run, rec, cjson.decode(ARGV[5]), now) then return 0 end
  else
    if not end_stop(root, run, rec, now) then return 0 end
    note(root, '{"e":"resumed","r":' .. cjson.encode(run) .. ',"allow":' .. ARGV[5] .. ',"by":' .. cjson.encode(ARGV[6])
      .. '}', now)
    -- In its journal stands from where on evidence counts again.
    tell(root, run, '{"k":"resume","allow":' .. ARGV[5] .. '}', now)
  end
  redis.call('HSET', rec, 'ct', token)
  return 1
end

local name, payload, id = ARGV[5], ARGV[6], ARGV[7]
if not f[1] or f[3] ~= 'a' then return -1 end
-- Under its id stands the log's number, by which restart forgets old ids, and the token of the call that brought it.
local seen = redis.call('HGET', K.signals(root, run), id)
if seen then return string.match(seen, '^%d+ (.*)$') == token and 1 or 0 end
if f[1] == 'd' then return -2 end
redis.call('HSET', K.signals(root, run), id, (f[4] or 0) .. ' ' .. token)
redis.call('RPUSH', K.log(root, run), stamped('{"k":"signal","n":' .. cjson.encode(name) .. ',"v":' .. payload
  .. ',"i":' .. cjson.encode(id) .. '}', now))
note(root, '{"e":"signal","r":' .. cjson.encode(run) .. ',"n":' .. cjson.encode(name) .. '}', now)
if f[1] == 'p' then
  for _, waited in ipairs(cjson.decode(f[2] or '[]')) do
    if waited == name then wake(root, run, now) break end
  end
else
  wake(root, run, now)
end
return 1
