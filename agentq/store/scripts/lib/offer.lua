-- Recording a step, and the log and wake of the agent that asked for it.
-- include: accounts backlog

-- It waits for another try, for hours perhaps; whoever waits for its end need not.
local function end_wait(root, id, rec, now)
  local f = redis.call('HMGET', rec, 'g', 'q', 'l', 'ln')
  local name = root .. '|' .. id .. '|' .. f[1]
  redis.call('ZREM', K.due(), name)
  if f[4] then
    redis.call('ZREM', K.waiters(f[4]), name)
    redis.call('HDEL', rec, 'ln', 'zs')
  end
  leave_backlog(name, rec, f[2], f[3])
  place(root, id, rec, f[2], f[3], f[1], take_kept(root, id), nil, now)
end

-- Puts a parked agent back on its queue, or rings the bell of its running turn. Woken twice, it is queued once:
-- only a parked record moves. A run that rests after a costly replay waits among the timers for the end of its rest,
-- and what comes until then costs no replay of its own; urgent: it does not.
local function wake(root, run, now, urgent)
  local rec = K.step(root, run)
  local f = redis.call('HMGET', rec, 's', 'g', 'q', 'l', 'hb', 'w', 't')
  local told = CALL.hears
  if f[1] == 'p' then
    local name = root .. '|' .. run .. '|' .. f[2]
    if f[5] and tonumber(f[5]) > now and not urgent then
      redis.call('HSET', rec, 'hw', 1)
      redis.call('ZADD', K.due(), f[5], name)
      return
    end
    redis.call('ZREM', K.due(), name)
    redis.call('HDEL', rec, 'sw', 'hb', 'hw')
    place(root, run, rec, f[3], f[4], f[2], take_kept(root, run), nil, now)
    note_step(root, rec, run, 'woken', now)
  elseif f[1] == 'h' and not (told and told.run == run and told.worker == f[6] and tostring(told.take) == f[7]) then
    local bell = K.wake(root, run)
    redis.call('LPUSH', bell, 1)
    redis.call('LTRIM', bell, 0, 0)
    redis.call('PEXPIRE', bell, 60000)
  elseif f[1] == 'l' and urgent and redis.call('HEXISTS', rec, 'ln') == 1 then
    -- It waits until a person raises its budget or has it go on, which nobody need do any more.
    end_wait(root, run, rec, now)
  end
end

-- Appends an input (text of a JSON object without its time) to a run's log and wakes the run. A run that has ended, or
-- whose record is gone, hears nothing: a log without a record would never get an end.
local function tell(root, run, entry, now, urgent)
  local state = redis.call('HGET', K.step(root, run), 's')
  if not state or state == 'd' then return end
  redis.call('RPUSH', K.log(root, run), stamped(entry, now))
  wake(root, run, now, urgent)
end

-- Sub-agents below hear of it, one by one and soon: those of a fan-out, or of a run that could not say so itself.
local function unwind(root, above)
  if redis.call('HEXISTS', K.tree(root), 'ag') == 1 or redis.call('EXISTS', K.members(root)) == 1 then
    redis.call('ZADD', K.unwinding(), 0, root .. '|' .. above)
  end
end

-- Nobody wants a child any more: a sub-agent hears of it, a step that is not taken yet never starts.
local function call_off(root, child, why, now)
  if redis.call('SADD', K.cancelled(root), child) == 0 then return end
  local rec = K.step(root, child)
  local f = redis.call('HMGET', rec, 'k', 's', 'tw')
  if f[1] == 'a' then
    tell(root, child, '{"k":"cancel","why":' .. cjson.encode(why) .. '}', now, true)
  elseif not f[1] then
    unwind(root, child)
  elseif f[2] == 'l' then
    end_wait(root, child, rec, now)
  end
  -- Its hedge hears of it with it, and may wait as well.
  local twin = f[3] and K.step(root, f[3])
  if twin and redis.call('HGET', twin, 's') == 'l' then end_wait(root, f[3], twin, now) end
end

-- Puts a run under its start key. Returns the run that stands there and whether its arguments are the same.
local function claim_start(o)
  local run, digest = standing_start(o.sd)
  if run then return run, digest == (o.ad or '') end
  redis.call('SET', K.start(o.sd), o.id .. '|' .. (o.ad or ''))
  return o.id, true
end

local function begin_agent(o, now)
  enlist(o.root, 'a', o.id)
  if o.id ~= o.root then redis.call('HSET', K.tree(o.root), 'ag', 1) end
  local start = { k = 'start', version = o.v }
  redis.call('RPUSH', K.log(o.root, o.id), stamped(cjson.encode(start), now))
  redis.call('ZADD', K.runs(), now, o.root .. '|' .. o.id)
  if o.zw then
    redis.call('HSET', K.step(o.root, o.id), 'zw', cjson.encode(o.zw))
    redis.call('ZADD', K.watched(), now + math.min(o.zw.quiet or o.zw.wall, o.zw.wall or o.zw.quiet), o.root .. '|' .. o.id)
  end
end

-- From when on the step may be taken. A delay is counted by this clock: the sender's may be another.
local function due_of(o, now)
  if o.dly then return now + o.dly end
  return o.due
end

-- What carries a step on may be of another name, and an agent.
local function become(o, rec, now)
  redis.call('HSET', rec, 'nm', o.nm)
  if o.k == 'a' and redis.call('HGET', rec, 'k') ~= 'a' then
    redis.call('HSET', rec, 'k', 'a')
    if o.v then redis.call('HSET', rec, 'v', o.v) end
    begin_agent(o, now)
  end
end

-- A replaced record takes its successor's message under the next generation, and keeps its place in its run.
local function succeed_to(o, rec, generation, rest, now)
  adopt_arguments(o.root, rec, o.pl)
  redis.call('HSET', rec, 'g', generation, 'q', o.q, 'l', o.l)
  if o.tn then redis.call('HSET', rec, 'tn', o.tn) end
  become(o, rec, now)
  place(o.root, o.id, rec, o.q, o.l, generation, rest, due_of(o, now), now)
end

-- Records a step if it is absent and puts it in its lane. Returns 1 for a new one, 0 for a known one.
-- A plain message, a Celery task's, goes to its lane without a record.
local function offer_one(o, rest, now)
  if o.k == 'p' then
    place_plain(o.q, o.l, rest, now)
    return 1
  end
  local rec = K.step(o.root, o.id)
  local f = redis.call('HMGET', rec, 's', 'g')
  if f[1] == 'r' then
    succeed_to(o, rec, tonumber(f[2]) + 1, rest, now)
    return 1
  end
  if f[1] then return 0 end
  local fields = { 'g', o.g, 'q', o.q, 'l', o.l, 'nm', o.nm, 'k', o.k, 'c', ms_text(now) }
  for _, name in ipairs({ 'pr', 'ak', 'jr', 'jn', 'ji', 'v', 'sd', 'ud', 'sp', 'tn', 'nd', 'rs', 'hg' }) do
    if o[name] ~= nil then
      fields[#fields + 1] = name
      fields[#fields + 1] = o[name]
    end
  end
  if o.cd then
    fields[#fields + 1] = 'cd'
    fields[#fields + 1] = cjson.encode(o.cd)
  end
  redis.call('HSET', rec, unpack(fields))
  enter_tree(o.root)
  if o.pl then adopt_arguments(o.root, rec, o.pl) end
  local tree = K.tree(o.root)
  if o.bg and o.id ~= o.root and o.k ~= 'i' then
    count_step(o, rec, now)
  else
    redis.call('HINCRBY', tree, 'n_steps', (o.id == o.root or o.k == 'i') and 0 or 1)
  end
  if o.id == o.root then redis.call('HSET', tree, 'born', ms_text(now)) end
  if o.bu then
    local account = o.id == o.root and tree or K.account(o.root, o.id)
    redis.call('HSET', account, 'born', ms_text(now))
    for name, limit in pairs(o.bu) do redis.call('HSET', account, 'b_' .. name, string.format('%.0f', limit)) end
    if o.id ~= o.root then enlist(o.root, 'b', o.id) end
  end
  if o.k == 'a' then begin_agent(o, now) else enlist(o.root, o.k, o.id) end
  local due = due_of(o, now)
  if not due and must_wait(o) then
    hold_back(o, rec, rest, now)
    return 1
  end
  local name = not CALL.own and name_among(o.k, o.nm, o.v)
  place(o.root, o.id, rec, o.q, o.l, o.g, rest, due, now, nil, o.tn or '', name)
  if o.pr or o.k == 'a' then note_step(o.root, rec, o.id, 'queued', now, { q = o.q }) end
  return 1
end
