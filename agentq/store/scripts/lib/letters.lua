-- Dead letters: whole messages that nobody takes until a person replays or drops them.

-- Losses: what nobody can tell who was there, for whoever reports such things to people and takes them from here, each once.
-- Where nobody does they are forgotten: the newest are kept, and for an hour, since later they are no news.
local MOST_LOSSES, LOSS_MS = 1000, 3600000

local function tell_loss(why, root, id, queue, words, now)
  local event = { why = why, id = id, q = queue, words = words }
  if root then
    local f = redis.call('HMGET', K.step(root, id), 'nm', 'k', 'pr', 'a', 'wl')
    local run = f[2] == 'a' and id or f[3] or root
    local above = redis.call('HMGET', K.step(root, run), 'nm', 'k')
    event.name, event.run, event.a, event.worker = f[1], run, tonumber(f[4] or 0), f[5]
    event.agent = above[2] == 'a' and above[1]
  end
  for name, value in pairs(event) do if not value then event[name] = nil end end
  redis.call('LPUSH', K.losses(), stamped(cjson.encode(event), now))
  redis.call('LTRIM', K.losses(), 0, MOST_LOSSES - 1)
  redis.call('PEXPIRE', K.losses(), LOSS_MS)
end

-- more: further fields and values, for what has a record. root: of its step, nil for a plain message.
local function write_letter(id, queue, lane, message, why, words, now, more, root)
  redis.call('HSET', K.letter(id), 'q', queue, 'l', lane, 'm', message, 'why', why, 'words', words, 'at', ms_text(now),
    unpack(more or {}))
  -- A step that was replayed a moment ago left its token there, with an end.
  redis.call('PERSIST', K.letter(id))
  redis.call('ZADD', K.letters(), now, id)
  -- Of an undo its last attempt tells by itself.
  if why ~= 'undo failed' then tell_loss(why, root, id, queue, words, now) end
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

-- An undo that will not come about by itself: the agent takes the rest back without it, and may end. The step stands as a
-- dead letter all the same, and with it the keys of its tree.
local function tell_of_undo(root, id, rec, name, words, now)
  local f = redis.call('HMGET', rec, 'pr', 'ak')
  note(root, cjson.encode({ e = 'undo-failed', r = f[1] or root, s = id, n = name, error = words }), now)
  if not (f[1] and f[2]) then return end
  local failure = { code = 'step_condemned', fields = { step = name, step_id = id, reason = words } }
  tell(root, f[1], cjson.encode({ k = 'result', id = f[2], s = 'error', v = failure }), now)
end

-- The step waits for a person: its join and its parent with it, and their keys keep standing.
local function condemn_step(root, id, rec, queue, lane, message, why, words, now)
  local f = redis.call('HMGET', rec, 'nm', 'k', 'd', 'w', 'wl', 'ud')
  redis.call('HSET', rec, 's', 'x', 'e', words, 'dl', 1)
  write_letter(id, queue, lane, message, why, words, now,
    { 'root', root, 'id', id, 'nm', f[1] or '', 'k', f[2] or '', 'd', f[3] or 0, 'w', f[4] or '', 'wl', f[5] or '' }, root)
  note_step(root, rec, id, 'condemned', now, { why = why, error = words })
  if f[6] then tell_of_undo(root, id, rec, f[1] or '', words, now) end
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
