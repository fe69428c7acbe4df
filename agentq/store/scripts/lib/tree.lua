-- A tree is a root run with all that stands below it. Its keys have no end while a step of it is not done (invariant
-- 10); when the last one is, every key of it gets the retention as its end.

local MEMBER_KEYS = {
  s = function(root, id) return { K.step(root, id), K.result(id) } end,
  a = function(root, id)
    return { K.step(root, id), K.result(id), K.log(root, id), K.signals(root, id), K.wake(root, id) }
  end,
  j = function(root, id) return { K.join(root, id), K.bits(root, id) } end,
  q = function(root, id) return { K.ask(root, id) } end,
}

local function enlist(root, kind, id)
  redis.call('RPUSH', K.members(root), kind .. '|' .. id)
end

-- Gives an end to the members from first on, at most chunk of them; returns the next one, nil when it is through.
local function retire_chunk(root, first, chunk)
  local names = redis.call('LRANGE', K.members(root), first, first + chunk - 1)
  for _, name in ipairs(names) do
    local kind, id = string.match(name, '^(%a)|(.*)$')
    for _, key in ipairs(MEMBER_KEYS[kind](root, id)) do
      redis.call('PEXPIRE', key, RETENTION_MS)
    end
    if kind == 'a' then
      local digest = redis.call('HGET', K.step(root, id), 'sd')
      if digest then redis.call('PEXPIRE', K.start(digest), RETENTION_MS) end
    end
  end
  if #names == chunk then return first + chunk end
  for _, key in ipairs({ K.tree(root), K.members(root), K.cancelled(root), K.events(root) }) do
    redis.call('PEXPIRE', key, RETENTION_MS)
  end
  return nil
end

-- One step of the tree is done. Large trees are left to tick, chunk by chunk.
local function leave_tree(root)
  if redis.call('HINCRBY', K.tree(root), 'live', -1) > 0 then return end
  if redis.call('LLEN', K.members(root)) <= 100 then
    retire_chunk(root, 0, 101)
  else
    redis.call('ZADD', K.retiring(), 0, root)
  end
end

local function enter_tree(root)
  local live = redis.call('HINCRBY', K.tree(root), 'live', 1)
  if live == 1 then
    -- A tree that had ended lives again: its shared keys lose their end.
    redis.call('ZREM', K.retiring(), root)
    for _, key in ipairs({ K.tree(root), K.members(root), K.cancelled(root), K.events(root) }) do
      redis.call('PERSIST', key)
    end
  end
end
