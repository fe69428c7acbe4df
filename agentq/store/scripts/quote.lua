-- quote: the message that a run was started with, or goes on with; nothing changes.
-- include: common
-- ARGV: root, run
-- Reply: the message without its name; '' while it stands in a lane, or when there is no such run
-- Keeps: what is read is of one instant: a message is in one place only (1).
-- Full server: runs, it reads only.
local root, run = ARGV[1], ARGV[2]
local kept = redis.call('GET', K.message(root, run))
if kept then return unpacked(root, run, kept) end
local f = redis.call('HMGET', K.step(root, run), 's', 'w', 't')
if f[1] ~= 'h' then return '' end
local entry = redis.call('HGET', K.held(f[2]), f[3])
if not entry then return '' end
local _, _, message = parts_of(entry)
return rest_of(message)
