-- follow: takes the next step for a seat that has ended its last one and has waited for a moment.
-- include: common tree offer cancel going_on
-- ARGV: worker, token, JSON terms of going on, as a commit has them in `next`
-- Reply: {1} there is none for it, else {1, take, queue, flags, message}, flags as in take
-- Keeps: what take keeps; the same token gets the same reply.
local worker, token, next = ARGV[1], ARGV[2], cjson.decode(ARGV[3])
stop_lingering(worker, next)
redis.call('DEL', K.seat(worker, next.seat))
local again = next_again(worker, next.seat, token)
if #again > 1 then return again end
return take_next(worker, token, next, now_ms())
