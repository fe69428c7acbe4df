-- What is not sent although an agent asks for it: its refusal is an input like any other (invariants 7 and 11).

-- Why an offer is not sent, as an error's wire form; nil when it is. What stands is not refused afterwards. Parts of a
-- canvas (no ask, no join of ours) are never refused: half a canvas would never end.
local function refusal_of(o, now)
  if not (o.ak or o.jn) or redis.call('EXISTS', K.step(o.root, o.id)) == 1 then return nil end
  -- A step of a cancelled agent is taken and revoked. A sub-agent would run: whoever cancels walks only once.
  if o.k == 'a' and o.pr and not o.ud and (redis.call('SISMEMBER', K.cancelled(o.root), o.pr) == 1
    or (o.jn and redis.call('SISMEMBER', K.cancelled(o.root), o.jn) == 1)) then
    return { code = 'run_cancelled', fields = { run_id = o.id, why = 'its parent was cancelled' } }, 'RunCancelled'
  end
  local short = o.bg and first_short(opened_accounts(o.root, o.bg, now), { steps = 1, depth = o.dp }, now)
  if short and not is_left_to_admission(short) then return refusal_by(short), 'BudgetExceeded' end
  if not o.sd then return nil end
  -- Another run's outcome is not told to this one: a child under a key that stands elsewhere is refused.
  local run = claim_start(o)
  if run == o.id then return nil end
  return { code = 'key_reused', fields = { key = (o.cd or {}).key or '', run_id = run } }, 'KeyReused'
end

local function refuse(o, refusal, name, log, now)
  if o.ak then
    redis.call('RPUSH', log, stamped(cjson.encode({ k = 'result', id = o.ak, s = 'error', v = refusal }), now))
    return
  end
  -- Put together as text: cjson writes an empty list as {}.
  local result = { exc_type = name, exc_module = 'agentq.core.errors', exc_message = { refusal.code }, agentq = refusal }
  local meta = '{"status":"FAILURE","result":' .. cjson.encode(result) .. ',"traceback":null,"children":[],"task_id":'
    .. cjson.encode(o.id) .. '}'
  redis.call('SET', K.result(o.id), meta)
  redis.call('PUBLISH', K.result(o.id), meta)
  enlist(o.root, 'r', o.id)
  arrive(o.jr, o.jn, o.ji, false, now)
end

-- log: the journal of the agent that asks.
local function offer_or_refuse(o, rest, log, now)
  local refusal, name = refusal_of(o, now)
  if refusal then refuse(o, refusal, name, log, now) else offer_one(o, rest, now) end
end
