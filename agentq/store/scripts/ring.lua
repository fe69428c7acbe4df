-- ring: puts a plain message, one without a record, in its lane and rings the queue's bell.
-- include: common
-- ARGV: queue, lane, message
-- Reply: the lane's length
-- Keeps: no idle worker misses work (5).
local length = redis.call('LPUSH', K.lane(ARGV[1], ARGV[2]), ARGV[3])
ring(ARGV[1])
return length
