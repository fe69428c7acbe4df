-- Who is not wanted any more: a step whose agent was cancelled, or the call or the fan-out that it belongs to.

-- An agent's turn must see the cancel by itself, unless it was given up, and an undo runs because of it. The members that
-- an internal step sends go one by one: their join waits for each.
local function is_cancelled(root, id, rec)
  local key = K.cancelled(root)
  if redis.call('EXISTS', key) == 0 then return false end
  local f = redis.call('HMGET', rec, 'pr', 'k', 'jn', 'ud', 'gu', 'aw', 'hd')
  local parent, kind, fan_out, undoes = f[1], f[2], f[3], f[4]
  -- Given up by a person, or another has answered for it (see answering.lua).
  if f[5] or f[6] then return true end
  if kind == 'a' or kind == 'i' or undoes then return false end
  if redis.call('SISMEMBER', key, id) == 1 then return true end
  if f[7] and redis.call('SISMEMBER', key, f[7]) == 1 then return true end
  -- Parts of a canvas have no parent of their own: they go with the whole tree.
  if redis.call('SISMEMBER', key, parent or root) == 1 then return true end
  return fan_out and redis.call('SISMEMBER', key, fan_out) == 1 or false
end
