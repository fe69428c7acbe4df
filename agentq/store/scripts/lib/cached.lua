-- What cached steps have answered: kept for a while under the digest of name, version, tenant and arguments. An entry counts
-- in the epoch of its step: to forget all of a step's is to begin the next one.
-- include: common

-- What is kept, nil for nothing that counts: v the value as JSON, tk tokens and us micro-dollars that making it took; without
-- v it was too large to be kept, so that nobody need wait for it.
local function kept_answer(digest, name)
  local f = redis.call('HMGET', K.cached(digest), 'ep', 'v', 'tk', 'us')
  if not f[1] or f[1] ~= (redis.call('HGET', K.caches(), 'ep|' .. name) or '0') then return nil end
  return { v = f[2], tk = tonumber(f[3] or 0), us = tonumber(f[4] or 0) }
end

-- epoch: the one in which its making began; what was forgotten meanwhile stays so.
local function keep_answer(digest, name, epoch, answer)
  redis.call('HINCRBY', K.caches(), 'runs|' .. name, 1)
  if epoch ~= tonumber(redis.call('HGET', K.caches(), 'ep|' .. name) or 0) then return end
  local key = K.cached(digest)
  redis.call('DEL', key)
  redis.call('HSET', key, 'ep', epoch, 'tk', answer.tokens or 0, 'us', answer.usd_micro or 0)
  if answer.v then redis.call('HSET', key, 'v', answer.v) end
  redis.call('PEXPIRE', key, string.format('%.0f', answer.ms))
end

-- A step was answered so: what that has saved, of its name and of its tree. times: 1, or -1 to take it back.
local function note_hit(root, name, answer, times)
  redis.call('HINCRBY', K.caches(), 'hits|' .. name, times)
  redis.call('HINCRBY', K.tree(root), 'n_cached', times)
  for field, amount in pairs({ tokens = answer.tk, usd_micro = answer.us }) do
    if amount > 0 then
      redis.call('HINCRBY', K.caches(), field .. '|' .. name, string.format('%.0f', amount * times))
      redis.call('HINCRBY', K.tree(root), 'n_saved_' .. field, string.format('%.0f', amount * times))
    end
  end
end
