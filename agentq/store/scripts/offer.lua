-- offer: records steps if they are absent and queues them; opens joins.
-- include: common tree offer join
-- ARGV: number of joins; per join: JSON header, body message ('' when the join has none)
--       then number of offers; per offer: JSON header, message (without its name)
-- Reply: per offer {state (1 new, 0 known, 2 key reused with other arguments), run id}
-- Keeps: custody from the first moment (1): the record and the lane are written together; a repeat sends nothing.
local now = now_ms()
local at = 1
local function following() at = at + 1 return ARGV[at] end

for _ = 1, tonumber(ARGV[1]) do
  local j = cjson.decode(following())
  local message = following()
  if message ~= '' then j.message = message end
  if redis.call('EXISTS', K.join(j.root, j.id)) == 0 then
    if j.body then enter_tree(j.root) end
    make_join(j)
  end
end

local replies = {}
for _ = 1, tonumber(following()) do
  local o = cjson.decode(following())
  local rest = following()
  local reply = nil
  if o.sd then
    local key = K.start(o.sd)
    local standing = redis.call('GET', key)
    if standing then
      local run, digest = string.match(standing, '^([^|]*)|(.*)$')
      reply = { digest == o.ad and 0 or 2, run }
    else
      redis.call('SET', key, o.id .. '|' .. o.ad)
    end
  end
  replies[#replies + 1] = reply or { offer_one(o, rest, now), o.id }
end
return replies
