-- A tree is a root run with all that stands below it. Its keys have no end while a step of it is not done (invariant
-- 10); when the last one is, every key of it gets the retention as its end.

local MEMBER_KEYS = {
  s = function(root, id) return { K.step(root, id), K.result(id) } end,
  a = function(root, id)
    return { K.step(root, id), K.result(id), K.message(root, id), K.log(root, id), K.signals(root, id),
      K.wake(root, id) }
  end,
  i = function(root, id) return { K.step(root, id), K.result(id) } end,
  p = function(root, name) return { K.payload(root, name) } end,
  b = function(root, id) return { K.account(root, id) } end,
  j = function(root, id) return { K.join(root, id), K.bits(root, id) } end,
  q = function(root, id) return { K.ask(root, id) } end,
  -- A step that was refused before it had a record: its result alone is read.
  r = function(_, id) return { K.result(id) } end,
}

local function shared_keys(root)
  return { K.tree(root), K.members(root), K.cancelled(root), K.events(root) }
end

-- The root's own record is a member without being listed: most trees are one run, which so needs no list.
local function enlist(root, kind, id)
  if id == root and (kind == 's' or kind == 'a') then return end
  redis.call('RPUSH', K.members(root), kind .. '|' .. id)
end

-- A large value lives as long as the tree from now on. One that is taken over again is listed already.
local function adopt(root, name)
  if redis.call('PERSIST', K.payload(root, name)) == 1 then enlist(root, 'p', name) end
end

-- The large arguments of a step's next message, nil when it holds them itself, in place of those of the one before.
local function adopt_arguments(root, rec, name)
  local before = redis.call('HGET', rec, 'pl')
  if before == (name or false) then return end
  if before then redis.call('UNLINK', K.payload(root, before)) end
  if name then
    adopt(root, name)
    redis.call('HSET', rec, 'pl', name)
  else
    redis.call('HDEL', rec, 'pl')
  end
end

-- The run that stands under a keyed start, and the hash of its arguments.
local function standing_start(digest)
  return string.match(redis.call('GET', K.start(digest)) or '', '^([^|]*)|(.*)$')
end

local function act_on(root, kind, id, act)
  for _, key in ipairs(MEMBER_KEYS[kind](root, id)) do act(key) end
  if kind ~= 'a' then return end
  local digest = redis.call('HGET', K.step(root, id), 'sd')
  if digest and standing_start(digest) == id then act(K.start(digest)) end
end

-- Does act(key) for every key of the members from first on, at most chunk members; returns how many members it saw.
local function each_member(root, first, chunk, act)
  -- As an agent's, whatever it is: keys that are not there are not missed.
  if first == 0 then act_on(root, 'a', root, act) end
  local names = redis.call('LRANGE', K.members(root), first, first + chunk - 1)
  for _, name in ipairs(names) do
    local kind, id = string.match(name, '^(%a)|(.*)$')
    act_on(root, kind, id, act)
  end
  return #names
end

local function expire(key) redis.call('PEXPIRE', key, RETENTION_MS) end
local function persist(key) redis.call('PERSIST', key) end

-- Gives an end to the members from first on, at most chunk of them; returns the next one, nil when it is through.
local function retire_chunk(root, first, chunk)
  if each_member(root, first, chunk, expire) == chunk then return first + chunk end
  for _, key in ipairs(shared_keys(root)) do expire(key) end
  return nil
end

-- Every key of an ended tree gets its end. Large trees are left to tick, chunk by chunk. kind: of the root; keyed: whether it
-- was started under a key.
local function retire_tree(root, kind, keyed)
  redis.call('ZREM', K.reviving(), root)
  local members = redis.call('LLEN', K.members(root))
  if members == 0 and kind == 's' and not keyed then
    -- Most trees are one step, which has no more keys than these.
    for _, key in ipairs({ K.step(root, root), K.result(root), K.tree(root), K.cancelled(root), K.events(root) }) do
      expire(key)
    end
  elseif members <= 100 then
    retire_chunk(root, 0, 101)
  else
    redis.call('ZADD', K.retiring(), 0, root)
  end
end

-- Takes the end from the members from first on, at most chunk of them; returns the next one, nil when it is through.
local function revive_chunk(root, first, chunk)
  if each_member(root, first, chunk, persist) == chunk then return first + chunk end
  return nil
end

-- The keys of a tree that lives again have no end any more. Those of a large one are left to tick, which sees some
-- thousand members a second, unless their end is near: the first member's is the nearest.
local AT_ONCE, NEAR_MS = 500, 600000
local function revive_tree(root)
  local kind, id = string.match(redis.call('LINDEX', K.members(root), 0) or '', '^(%a)|(.*)$')
  local left = kind and redis.call('PTTL', MEMBER_KEYS[kind](root, id)[1]) or 0
  if left == -1 then left = RETENTION_MS end
  local following = revive_chunk(root, 0, AT_ONCE)
  while following and left < NEAR_MS do following = revive_chunk(root, following, AT_ONCE) end
  if following then redis.call('ZADD', K.reviving(), following, root) end
  for _, key in ipairs(shared_keys(root)) do persist(key) end
end

-- One step of the tree is done. A tree with an agent in it waits for the archive, if there is one: the mark tells this
-- end from a later one, which a copy that was made before does not hold.
local function leave_tree(root)
  local tree = K.tree(root)
  if redis.call('HINCRBY', tree, 'live', -1) > 0 then return end
  local f = redis.call('HMGET', K.step(root, root), 'k', 'sd')
  if ARCHIVES and (f[1] == 'a' or redis.call('HEXISTS', tree, 'ag') == 1) then
    redis.call('HINCRBY', tree, 'end', 1)
    redis.call('ZADD', K.ended(), now_ms(), root)
  else
    retire_tree(root, f[1], f[2])
  end
end

local function enter_tree(root)
  local known = redis.call('HEXISTS', K.tree(root), 'live') == 1
  if redis.call('HINCRBY', K.tree(root), 'live', 1) > 1 or not known then return end
  -- A tree that had ended lives again (a plain task stood between two steps): what it has done so far loses its end.
  redis.call('ZREM', K.retiring(), root)
  redis.call('ZREM', K.ended(), root)
  revive_tree(root)
end
