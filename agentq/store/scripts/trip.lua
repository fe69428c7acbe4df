-- trip: a person opens a breaker, or closes it.
-- include: common tree offer suspects gates
-- ARGV: digest, 'trip' | 'reset', ms for which it stays open ('' for its own)
-- Reply: 1; 0 when no such breaker is known
-- Keeps: what waits for it goes on once it is closed (5).
if ARGV[2] == 'reset' then return gates().reset(ARGV[1], now_ms()) end
return gates().trip(ARGV[1], tonumber(ARGV[3]), now_ms())
