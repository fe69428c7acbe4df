-- append: an input from outside to one run: a signal, an answer, a cancel.
-- include: common tree offer
-- ARGV: 'signal', root, run, name, payload as JSON, signal id
--       'answer', root, ask id, answer as JSON, who
--       'cancel', root, run, reason as a JSON string
-- Reply: signal: 1 appended, 0 this id was seen before, -1 no such run, -2 the run has ended
--        answer: {1, answer} accepted, {0, answer that stands} decided before, {-1} no such ask, {-2} closed
--        cancel: 1, 0 asked before, -1 no such run, -2 the run has ended
-- Keeps: a signal is an input once per id, early ones are kept (5); an ask has one decision.
local what, root = ARGV[1], ARGV[2]
local now = now_ms()

if what == 'answer' then
  local key = K.ask(root, ARGV[3])
  local f = redis.call('HMGET', key, 's', 'answer', 'card')
  if not f[1] then return { -1 } end
  if f[1] == 'answered' then return { 0, f[2] } end
  if f[1] ~= 'open' then return { -2 } end
  local run = cjson.decode(f[3]).run
  redis.call('HSET', key, 's', 'answered', 'answer', ARGV[4], 'by', ARGV[5], 'at', ms_text(now))
  redis.call('ZREM', K.asks(), root .. '|' .. ARGV[3])
  note(root, '{"e":"answered","r":' .. cjson.encode(run) .. ',"s":' .. cjson.encode(ARGV[3]) .. ',"by":'
    .. cjson.encode(ARGV[5]) .. '}', now)
  tell(root, run, '{"k":"answer","id":' .. cjson.encode(ARGV[3]) .. ',"v":' .. ARGV[4] .. '}', now)
  return { 1, ARGV[4] }
end

local run = ARGV[3]
local rec = K.step(root, run)
local f = redis.call('HMGET', rec, 's', 'sw', 'k', 'seg')
if not f[1] or f[3] ~= 'a' then return -1 end
if f[1] == 'd' then return -2 end

if what == 'cancel' then
  if redis.call('SADD', K.cancelled(root), run) == 0 then return 0 end
  note(root, '{"e":"cancelling","r":' .. cjson.encode(run) .. ',"why":' .. ARGV[4] .. '}', now)
  tell(root, run, '{"k":"cancel","why":' .. ARGV[4] .. '}', now)
  return 1
end

if redis.call('HSETNX', K.signals(root, run), ARGV[6], f[4] or 0) == 0 then return 0 end
redis.call('RPUSH', K.log(root, run), stamped('{"k":"signal","n":' .. cjson.encode(ARGV[4]) .. ',"v":' .. ARGV[5]
  .. ',"i":' .. cjson.encode(ARGV[6]) .. '}', now))
note(root, '{"e":"signal","r":' .. cjson.encode(run) .. ',"n":' .. cjson.encode(ARGV[4]) .. '}', now)
if f[1] == 'p' then
  for _, name in ipairs(cjson.decode(f[2] or '[]')) do
    if name == ARGV[4] then wake(root, run, now) break end
  end
else
  wake(root, run, now)
end
return 1
