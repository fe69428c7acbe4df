-- shelve: split mode: a plain message that came through the broker, or is on its way there, and that nobody can read goes
-- to the dead letters, whole. No worker's custody ends by it: the caller acknowledges the broker's message afterwards.
-- include: common tree offer suspects letters
-- ARGV: token, queue, lane, message, what was wrong, its name in the outbox ('|number|0') | ''
-- Reply: 1
-- Keeps: nothing loops for ever, and nothing is thrown away (1, 9); the same token makes one letter.
local token, queue, lane, message, words, name = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local id = letter_name('shelf', token)
if name ~= '' then
  redis.call('HDEL', K.outbox(), string.match(name, '^|(%d+)|'))
  unlist(name, queue, lane)
end
-- One that was replayed since keeps its token there for a while.
if redis.call('EXISTS', K.letter(id)) == 0 then
  write_letter(id, queue, lane, message, 'unreadable', words, now_ms())
end
return 1
