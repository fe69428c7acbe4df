-- replay: a person has a dead letter delivered again.
-- include: common tree offer suspects letters
-- ARGV: letter, token
-- Reply: 1 it waits for a worker again; 0 there is no such letter; -1 somebody is dropping it now
-- Keeps: a letter is replayed or dropped, once (1, 2); its deaths are forgotten; the same token gets the same reply.
local id, token = ARGV[1], ARGV[2]
local key, now = K.letter(id), now_ms()
local f = redis.call('HMGET', key, 'q', 'l', 'm', 'root', 'tok')
if f[5] == token then return 1 end
if not redis.call('ZSCORE', K.letters(), id) then return 0 end
if f[4] then
  local rec = K.step(f[4], id)
  if redis.call('HGET', rec, 's') ~= 'x' then return -1 end
  pardon(f[4], id, rec, f[1], f[2], rest_of(f[3]), now)
  note_step(f[4], rec, id, 'replayed', now)
else
  forget_letter(id)
  place_plain(f[1], f[2], f[3], now)
end
redis.call('HSET', key, 'tok', token)
redis.call('PEXPIRE', key, 60000)
return 1
