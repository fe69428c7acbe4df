-- Whose turn it is in a lane. WEIGHTS and WEIGHT_OF_OTHERS are set by the runner.
-- include: lines

local function weight_of(tenant)
  if tenant == '' then return 1 end
  return WEIGHTS[redis.sha1hex(tenant)] or WEIGHT_OF_OTHERS
end

-- The entry whose turn it is in a lane; false when the lane is empty. Who has had as many as its weight goes to the end
-- of the turns: so one tenant's thousands let another's one wait for one round.
local function pop_line(way, queue, lane)
  local turns = K.turns(way, lane, queue)
  while true do
    local turn = redis.call('LINDEX', turns, -1)
    if not turn then return redis.call('RPOP', line_of(way, queue, lane, '')) end
    local served, tenant = turn_parts(turn)
    local line = line_of(way, queue, lane, tenant)
    local entry = redis.call('RPOP', line)
    if entry and tenant ~= '' and way == 'fused' then count_line(queue, lane, -1) end
    if tenant ~= '' and redis.call('EXISTS', line) == 0 then
      leave_turns(way, queue, lane, turn)
    elseif not entry or served + 1 >= weight_of(tenant) then
      if served > 0 then redis.call('LSET', turns, -1, '0|' .. tenant) end
      redis.call('RPOPLPUSH', turns, turns)
    else
      redis.call('LSET', turns, -1, (served + 1) .. '|' .. tenant)
    end
    if entry then return entry end
  end
end
