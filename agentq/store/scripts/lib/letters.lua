-- Dead letters: whole messages that nobody takes until a person replays or drops them.

-- more: further fields and values, for what has a record.
local function write_letter(id, queue, lane, message, why, words, now, more)
  redis.call('HSET', K.letter(id), 'q', queue, 'l', lane, 'm', message, 'why', why, 'words', words, 'at', ms_text(now),
    unpack(more or {}))
  redis.call('ZADD', K.letters(), now, id)
end

-- A name for a message that has none; the take is told apart by its worker, which is never used again.
local function letter_name(worker, take)
  return redis.sha1hex(worker .. '|' .. take)
end

-- The step waits for a person: its join and its parent with it, and their keys keep standing.
local function condemn_step(root, id, rec, queue, lane, message, why, words, now)
  local f = redis.call('HMGET', rec, 'nm', 'k', 'd', 'w', 'wl')
  redis.call('HSET', rec, 's', 'x', 'e', words)
  write_letter(id, queue, lane, message, why, words, now,
    { 'root', root, 'id', id, 'nm', f[1] or '', 'k', f[2] or '', 'd', f[3] or 0, 'w', f[4] or '', 'wl', f[5] or '' })
  note_step(root, rec, id, 'condemned', now, { why = why, error = words })
end

local function forget_letter(id)
  redis.call('DEL', K.letter(id))
  redis.call('ZREM', K.letters(), id)
end
