-- offer: records steps if they are absent and queues them; opens joins.
-- include: common tree offer join
-- ARGV: number of joins; per join: JSON header, body message ('' when the join has none)
--       then number of offers; per offer: JSON header, message (without its name)
-- Reply: per offer {state (1 new, 0 known, 2 key reused with other arguments), run id}
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
  local run, same = o.id, true
  if o.sd then run, same = claim_start(o) end
  local state = 2
  if same then state = run == o.id and offer_one(o, rest, now) or 0 end
  replies[#replies + 1] = { state, run }
end
return replies
