-- condemn: what a worker holds and nobody can read, or an undo that has failed, goes to the dead letters, whole.
-- include: common tree offer suspects letters gates
-- ARGV: worker, take, why (a word), what was wrong, of an undo JSON {usage?, accounts?, m?} as commit has them, else '',
--   root, id ('' for what names no step)
-- Reply: 1 when something was held under that number, of a named step also when asked again; else 0
-- Keeps: nothing loops for ever, and nothing is thrown away (1, 9).
local worker, take, why, words = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local entry = redis.call('HGET', K.held(worker), take)
if not entry then
  if ARGV[7] == '' or redis.call('HGET', K.letter(ARGV[7]), 'why') ~= why then return 0 end
  local f = redis.call('HMGET', K.step(ARGV[6], ARGV[7]), 's', 'w', 't')
  return f[1] == 'x' and f[2] == worker and f[3] == take and 1 or 0
end
redis.call('HDEL', K.held(worker), take)
local now = now_ms()
local queue, lane, message = parts_of(entry)
local root, id = name_of(message)
if not root then
  write_letter(letter_name(worker, take), queue, lane, without_stamp(message), why, words, now)
  return 1
end
local rec = K.step(root, id)
local f = redis.call('HMGET', rec, 's', 'w', 't', 'g', 'gd')
if f[1] ~= 'h' or f[2] ~= worker or f[3] ~= take then return 0 end
redis.call('HSET', rec, 'g', tonumber(f[4]) + 1)
local charge = ARGV[5] ~= '' and cjson.decode(ARGV[5]) or {}
if f[5] then
  redis.call('HDEL', rec, 'gd')
  settle_guards(root, id, f[5], charge.m or {}, now)
end
spend(root, charge.usage, charge.accounts, now)
condemn_step(root, id, rec, queue, lane, message, why, words, now)
return 1
