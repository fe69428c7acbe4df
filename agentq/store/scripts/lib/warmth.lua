-- Warm workers: those that have open what a step names. A step is left to one of them that is idle, for a moment.
local WARMTH_MS = 100

local function has_all(warm, names)
  for name in string.gmatch(names, '[^\n]+') do
    if not string.find(warm, '\n' .. name .. '\n', 1, true) then return false end
  end
  return true
end

-- How many slots are free in other workers of the queue that have these open. `warm`: worker, names… of all.
local function warm_slots(worker, queue, names, warm, now)
  local free = 0
  for i = 1, #warm, 2 do
    local other = warm[i]
    local lives = other ~= worker and tonumber(redis.call('ZSCORE', K.workers(), other) or 0) > now
    if lives and has_all(warm[i + 1], names) then
      local f = redis.call('HMGET', K.worker(other), 'queues', 'slots', 'report')
      local serves = f[1] and string.find(f[1], '"' .. queue .. '"', 1, true)
      local takes = not (f[3] and string.find(f[3], '"why":', 1, true))
      if serves and takes then free = free + math.max(0, tonumber(f[2] or 1) - redis.call('HLEN', K.held(other))) end
    end
  end
  return free
end
