-- offer: records steps if they are absent and queues them; opens joins.
-- include: common tree offer join
-- ARGV: number of joins; per join: JSON header, body message ('' when the join has none)
--       then number of offers; per offer: JSON header, message (without its name)
-- Reply: per offer {state (1 new, 0 known, 2 key reused with other arguments), run id}; or {3, run id, which bound ('pool'
--   | 'tenant'), it, how many wait under it}: nothing was recorded, since the offer is one to refuse and there is no room
-- Keeps: custody from the first moment (1): the record and the lane are written together; a repeat sends nothing.
local now = now_ms()
local at = 0
local function following() at = at + 1 return ARGV[at] end

for _ = 1, tonumber(following()) do
  local j = cjson.decode(following())
  open_join(j, following(), now)
end

local replies = {}
for _ = 1, tonumber(following()) do
  local o, rest = cjson.decode(following()), following()
  -- What stands already is told, whether or not there is room for more.
  local full = o.fu and not (o.sd and standing_start(o.sd)) and redis.call('EXISTS', K.step(o.root, o.id)) == 0
    and must_wait(o)
  if full then
    local _, which, waiting = room_in(o.q, o.l, o.tn or '', o.mx, o.mt)
    replies[#replies + 1] = { 3, o.id, which, which == 'pool' and o.mx or o.mt, waiting }
  else
    local run, same = o.id, true
    if o.sd then run, same = claim_start(o) end
    local state = 2
    if same then state = run == o.id and offer_one(o, rest, now) or 0 end
    replies[#replies + 1] = { state, run }
  end
end
return replies
