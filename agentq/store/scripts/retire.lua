-- retire: ended trees on their way into the archive; their keys get their end when they stand there.
-- include: common tree
-- ARGV: 'claim', number of trees, ms for which nobody else shall copy them
--       'confirm', root, the mark under which it was claimed
-- Reply: claim: (root, mark)… of trees that have ended
--        confirm: 1 the keys get their end, 0 the tree has come back to life since: it will be claimed again
-- Keeps: no key of an ended run goes before the archive has it, and then each has its end (10). Two who copy the same
--   tree write the same.
-- Full server: runs, it makes room.
local now = now_ms()

if ARGV[1] == 'claim' then
  local out = {}
  for _, root in ipairs(redis.call('ZRANGEBYSCORE', K.ended(), '-inf', now, 'LIMIT', 0, ARGV[2])) do
    local f = redis.call('HMGET', K.tree(root), 'live', 'end')
    if f[1] == '0' then
      redis.call('ZADD', K.ended(), now + tonumber(ARGV[3]), root)
      out[#out + 1] = root
      out[#out + 1] = f[2]
    else
      redis.call('ZREM', K.ended(), root)
    end
  end
  return out
end

local root, mark = ARGV[2], ARGV[3]
local f = redis.call('HMGET', K.tree(root), 'live', 'end')
if f[1] ~= '0' or f[2] ~= mark then return 0 end
-- Confirmed before: its keys have their end, or tick is at it.
if redis.call('ZREM', K.ended(), root) == 1 then retire_tree(root) end
return 1
