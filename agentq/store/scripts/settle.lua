-- settle: ends a worker's custody of one message that no commit ends: a plain message acknowledged or put back, a
-- durable one handed back by its owner.
-- include: common tree offer release
-- ARGV: worker, take, 'drop' | 'requeue'
-- Reply: 1 when something was held under that number, else 0
-- Keeps: a message leaves custody only by its owner's word (1); a hand-back does not count as a start (9).
if ARGV[3] == 'drop' then return redis.call('HDEL', K.held(ARGV[1]), ARGV[2]) end
return give_back(ARGV[1], ARGV[2], false, now_ms())
