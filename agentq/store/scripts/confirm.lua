-- confirm: split mode: the broker has plain messages safe; they leave the outbox.
-- include: common
-- ARGV: per message: its name ('|number|0'), queue, lane
-- Reply: number of messages that stood there
-- Keeps: a plain message leaves our custody only when it is in the broker's (1).
-- Full server: runs, it makes room.
local n = 0
for i = 1, #ARGV, 3 do
  n = n + redis.call('HDEL', K.outbox(), string.match(ARGV[i], '^|(%d+)|'))
  unlist(ARGV[i], ARGV[i + 1], ARGV[i + 2])
end
return n
