-- relist: split mode: what processes in fused mode have put into lanes comes to where the broker is told of it.
-- include: common rehouse
-- ARGV: chunk, '1' when plain messages go too (the lanes are no queues of the broker) | '0', number of queues, queues…,
--       then messages that came out of a lane already: root, step, message without its name…
-- Reply: number of steps and messages that moved
-- Keeps: custody (1) while a fleet goes over from one mode to the other, in either direction (tick does the reverse).
local chunk, plain, count = tonumber(ARGV[1]), ARGV[2] == '1', tonumber(ARGV[3])
local now = now_ms()
local moved = 0

local function empty(queue, lane)
  local key = K.lane(queue, lane)
  for _, message in ipairs(redis.call('LRANGE', key, -chunk, -1)) do
    local root, id = name_of(message)
    if root then
      redis.call('LREM', key, -1, message)
      moved = moved + out_of_lane(root, id, rest_of(message), now)
    elseif plain then
      redis.call('LREM', key, -1, message)
      place_plain(queue, lane, message, now)
      moved = moved + 1
    end
  end
  moved = moved + empty_lines(queue, lane, chunk, now)
end

local function empty_suspects(queue)
  for _ = 1, chunk do
    local _, message = suspect_at(redis.call('RPOP', K.suspects(queue)))
    if not message then return end
    local root, id = name_of(message)
    moved = moved + out_of_lane(root, id, rest_of(message), now)
  end
end

for i = 4, 3 + count do
  empty_suspects(ARGV[i])
  for _, lane in ipairs({ 0, 3, 6, 9 }) do empty(ARGV[i], lane) end
end
for i = 4 + count, #ARGV, 3 do moved = moved + out_of_lane(ARGV[i], ARGV[i + 1], ARGV[i + 2], now) end
return moved
