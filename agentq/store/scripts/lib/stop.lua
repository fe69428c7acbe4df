-- Standing still: a run that a rule has found to be a zombie, or a person has stopped. What is to be taken of it or below it
-- goes into its line instead, which is a gate's that lets nobody through until a person has the run go on, or it ends. The
-- mark stands among those of who is not wanted any more, so that a tree without either pays for one look.
-- include: common

local function stop_line(root, run)
  return redis.sha1hex('stop|' .. root .. '|' .. run)
end

-- The stopped run that a step is of or stands below; nil for none. What is cancelled goes to its end, and so does an undo.
local function stopped_above(root, id, rec)
  local key = K.cancelled(root)
  if redis.call('EXISTS', key) == 0 then return nil end
  local f = redis.call('HMGET', rec, 'k', 'pr', 'ud')
  if f[3] then return nil end
  local run = f[1] == 'a' and id or f[2] or root
  while true do
    if redis.call('SISMEMBER', key, run) == 1 then return nil end
    if redis.call('SISMEMBER', key, 'stop|' .. run) == 1 then return run end
    if run == root then return nil end
    -- A part of a canvas has no parent of its own: it is the whole tree's.
    run = redis.call('HGET', K.step(root, run), 'pr') or root
  end
end

-- A step that nobody holds waits in the line of the stopped run, in the order in which it would have been taken.
local function set_aside(root, id, rec, generation, rest, run)
  local digest = stop_line(root, run)
  keep(root, id, rest)
  redis.call('HSET', rec, 's', 'l', 'ln', digest, 'zs', run)
  local ticket = redis.call('HINCRBY', K.ticks(), 'ticket', 1)
  redis.call('ZADD', K.waiters(digest), ticket, root .. '|' .. id .. '|' .. generation)
end

local function hold_gate(digest, run, on, at)
  redis.call('HSET', K.gate(digest), 'k', 'z', 'nm', 'stop of run ' .. run)
  redis.call('PERSIST', K.gate(digest))
  if on then redis.call('HSET', K.gate(digest), 'on', 1) else redis.call('HDEL', K.gate(digest), 'on') end
  redis.call('ZADD', K.gates(), ms_text(at), digest)
end

-- From now on nothing of the run or below it is taken. Returns false for one that stands still already.
-- stop: {why, rule}.
local function begin_stop(root, run, rec, stop, now)
  if redis.call('SADD', K.cancelled(root), 'stop|' .. run) == 0 then return false end
  redis.call('HSET', rec, 'st', stop.why)
  hold_gate(stop_line(root, run), run, true, now + 60000)
  note(root, cjson.encode({ e = 'stopped', r = run, n = redis.call('HGET', rec, 'nm'), why = stop.why, rule = stop.rule }), now)
  return true
end

-- What stands in the line comes into its lanes again, some at each tick. Returns false for a run that does not stand still.
local function end_stop(root, run, rec, now)
  if redis.call('SREM', K.cancelled(root), 'stop|' .. run) == 0 then return false end
  redis.call('HDEL', rec, 'st')
  hold_gate(stop_line(root, run), run, false, now)
  return true
end
