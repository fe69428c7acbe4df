-- Dead letters: whole messages that nobody takes until a person replays or drops them.

-- more: further fields and values, for what has a record.
local function write_letter(id, queue, lane, message, why, words, now, more)
  redis.call('HSET', K.letter(id), 'q', queue, 'l', lane, 'm', message, 'why', why, 'words', words, 'at', ms_text(now),
    unpack(more or {}))
  -- A step that was replayed a moment ago left its token there, with an end.
  redis.call('PERSIST', K.letter(id))
  redis.call('ZADD', K.letters(), now, id)
end

-- A name for a message that has none; the take is told apart by its worker, which is never used again.
local function letter_name(worker, take)
  return redis.sha1hex(worker .. '|' .. take)
end

-- A plain message has no record that could say since when nobody knew its task: its text says so, in front.
local function stamp_of(message)
  return tonumber(string.match(message, '^{"agentq_unserved":(%d+),'))
end

local function without_stamp(message)
  local _, last = string.find(message, '^{"agentq_unserved":%d+,')
  return last and '{' .. string.sub(message, last + 1) or message
end

local function with_stamp(message, since)
  return '{"agentq_unserved":' .. ms_text(since) .. ',' .. string.sub(message, 2)
end

-- The step waits for a person: its join and its parent with it, and their keys keep standing.
local function condemn_step(root, id, rec, queue, lane, message, why, words, now)
  local f = redis.call('HMGET', rec, 'nm', 'k', 'd', 'w', 'wl')
  redis.call('HSET', rec, 's', 'x', 'e', words, 'dl', 1)
  write_letter(id, queue, lane, message, why, words, now,
    { 'root', root, 'id', id, 'nm', f[1] or '', 'k', f[2] or '', 'd', f[3] or 0, 'w', f[4] or '', 'wl', f[5] or '' })
  note_step(root, rec, id, 'condemned', now, { why = why, error = words })
end

local function forget_letter(id)
  redis.call('DEL', K.letter(id))
  redis.call('ZREM', K.letters(), id)
end

-- A condemned step may be taken again, with a clean account.
local function pardon(root, id, rec, queue, lane, rest, now)
  forget_letter(id)
  redis.call('HSET', rec, 'd', 0)
  redis.call('HDEL', rec, 'da', 'co', 'un', 'e', 'dl')
  place(root, id, rec, queue, lane, redis.call('HINCRBY', rec, 'g', 1), rest, nil, now)
end

-- Offers a plain message again that was deferred.
local function offer_again(id, now)
  local f = redis.call('HMGET', K.letter(id), 'q', 'l', 'm')
  if not f[3] or redis.call('ZSCORE', K.letters(), id) then return 0 end
  redis.call('DEL', K.letter(id))
  place_plain(f[1], f[2], f[3], now)
  return 1
end
