-- The end of what stands below: sub-agents and waiting steps of a fan-out that nobody wants, all that an agent leaves open
-- which was ended from outside. Trees may be large, so tick walks through their members, a chunk at a time.

local function close_ask_of(root, run, id)
  local f = redis.call('HMGET', K.ask(root, id), 's', 'card')
  if f[1] ~= 'open' or cjson.decode(f[2]).run ~= run then return end
  redis.call('HSET', K.ask(root, id), 's', 'closed')
  redis.call('ZREM', K.asks(), root .. '|' .. id)
end

-- above: a run that has ended, or a fan-out. What a run has spawned goes on without it.
local function unwind_member(root, above, kind, id, now)
  if kind == 'q' then return close_ask_of(root, above, id) end
  local rec = K.step(root, id)
  if kind == 's' and redis.call('HGET', rec, 's') == 'l' and is_cancelled(root, id, rec) then
    return end_wait(root, id, rec, now)
  end
  if kind ~= 'a' then return end
  local f = redis.call('HMGET', rec, 's', 'pr', 'jn', 'sp')
  if f[1] and f[1] ~= 'd' and (f[3] == above or (f[2] == above and not f[4])) then
    call_off(root, id, 'its parent ended', now)
  end
end

-- Goes on with a walk; returns the next place, nil when it is through.
local function unwind_chunk(walk, first, chunk, now)
  local root, above = string.match(walk, '^([^|]*)|(.*)$')
  local names = redis.call('LRANGE', K.members(root), first, first + chunk - 1)
  for _, name in ipairs(names) do
    local kind, id = string.match(name, '^(%a)|(.*)$')
    unwind_member(root, above, kind, id, now)
  end
  if #names == chunk then return first + chunk end
end
