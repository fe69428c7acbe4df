-- leave: a worker hands back what it holds, and at the end its name.
-- include: common tree offer suspects letters release
-- ARGV: worker, chunk, '1' when the worker itself says so (not counted as deaths) | '0'
-- Reply: number handed back; fewer than chunk means that it holds nothing any more and is off the list
-- Full server: runs, what is in custody can be given back.
local worker, chunk = ARGV[1], tonumber(ARGV[2])
local now = now_ms()
local takes = redis.call('HKEYS', K.held(worker))
-- Highest take number first: each goes to the front of its lane, so the oldest ends up foremost.
table.sort(takes, function(a, b) return tonumber(a) > tonumber(b) end)
local n, company = 0, ARGV[3] == '0' and company_of(worker) or nil
for i = 1, math.min(chunk, #takes) do
  give_back(worker, takes[i], company, now)
  n = n + 1
end
if #takes <= chunk then
  redis.call('ZREM', K.workers(), worker)
  redis.call('ZREM', K.reaping(), worker)
  redis.call('SET', K.dead(worker), 1, 'PX', RETENTION_MS)
  redis.call('DEL', K.worker(worker))
  redis.call('HDEL', K.drained(), 'worker|' .. worker)
  redis.call('HDEL', K.warm(), worker)
end
return n
