-- restart: a run goes on as new: the next log begins with the inputs that were not consumed.
-- include: common tree offer pace
-- ARGV: root, run, worker, take, token, JSON header of the next message, next message, version, number of carried
--       entries (with their times), entries…, number of children to cancel, ids…
-- Reply: 1 restarted; 0 another holds the run
-- Keeps: no signal is lost between two logs (5); the journal of a run without end stays bounded.
local root, run, worker, take, token = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local rec = K.step(root, run)
local f = redis.call('HMGET', rec, 's', 'w', 't', 'tok', 'g', 'q', 'l', 'b', 'nm')
if f[4] == token then return 1 end
if f[1] ~= 'h' or f[2] ~= worker or f[3] ~= take then return 0 end
local now = now_ms()
local log = K.log(root, run)
local carried = tonumber(ARGV[9])
-- Inputs that came after the turn last read the log stay as well: they were not seen, so not consumed.
local header = cjson.decode(ARGV[6])
local late = redis.call('LRANGE', log, header.seen, -1)
-- Large results of local calls go with the log that refers to them.
for first = 0, redis.call('LLEN', log) - 1, 1000 do
  for _, entry in ipairs(redis.call('LRANGE', log, first, first + 999)) do
    local id = string.find(entry, '"ref":1', 1, true) and string.match(entry, '"id":"([^"]+)"')
    if id then redis.call('UNLINK', K.payload(root, id)) end
  end
end
adopt_arguments(root, rec, header.pl)
redis.call('DEL', log)
redis.call('RPUSH', log, stamped(cjson.encode({ k = 'start', version = ARGV[8] ~= '' and ARGV[8] or nil }), now))
for i = 1, carried do redis.call('RPUSH', log, ARGV[9 + i]) end
for _, entry in ipairs(late) do redis.call('RPUSH', log, entry) end
for i = 1, tonumber(ARGV[10 + carried]) do
  call_off(root, ARGV[10 + carried + i], 'its parent went on as new', now)
end
-- Signal ids are remembered for this log and the one before, so that the set stays bounded.
local ids = K.signals(root, run)
if redis.call('HLEN', ids) > 0 then
  local segment = redis.call('HINCRBY', rec, 'seg', 1)
  if segment % 8 == 0 then
    for _, id in ipairs(redis.call('HKEYS', ids)) do
      if tonumber(string.match(redis.call('HGET', ids, id), '^%d+')) < segment - 8 then redis.call('HDEL', ids, id) end
    end
  end
end
redis.call('HDEL', K.held(worker), take)
note_pace(f[6], f[9], f[8], take, now)
local generation = tonumber(f[5]) + 1
redis.call('HSET', rec, 'g', generation, 'tok', token, 'd', 0)
redis.call('HDEL', rec, 'ov')
if ARGV[8] ~= '' then redis.call('HSET', rec, 'v', ARGV[8]) end
place(root, run, rec, f[6], f[7], generation, ARGV[7], nil, now)
note_step(root, rec, run, 'restarted', now)
return 1
