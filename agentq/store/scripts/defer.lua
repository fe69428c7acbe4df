-- defer: a worker hands back what it cannot run, to be offered again after a while; it counts as no start.
-- include: common tree offer suspects letters
-- ARGV: worker, take, 'task' | 'version', what is missing, ms until the next offer at least, at most (it waits half of
--   the time for which it is unserved already), '1' when no living worker can run it | '0'
-- Reply: 1 deferred; 2 condemned to the dead letters, since no worker with the task came for too long; 0 it was not held;
--   3 still held, and the caller is to end it: a cancelled run whose version nobody has served for too long
-- Keeps: a rolling deploy loses nothing (1), a task that is gone for good does not loop (9); a run whose version nobody
--   serves is no dead letter: it waits, unless a person gives it up.
local worker, take, what, words = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local entry = redis.call('HGET', K.held(worker), take)
if not entry then return 0 end
local now = now_ms()
local queue, lane, message = parts_of(entry)
local root, id = name_of(message)

local function due_after(since)
  return now + math.min(math.max((now - since) / 2, tonumber(ARGV[5])), tonumber(ARGV[6]))
end

if not root then
  redis.call('HDEL', K.held(worker), take)
  local since = stamp_of(message) or now
  local name = letter_name(worker, take)
  if now - since >= UNKNOWN_MS or string.sub(message, 1, 2) ~= '{"' then
    write_letter(name, queue, lane, without_stamp(message), 'unknown task', words, now)
    return 2
  end
  redis.call('HSET', K.letter(name), 'q', queue, 'l', lane, 'm', with_stamp(without_stamp(message), since))
  redis.call('ZADD', K.due(), ms_text(due_after(since)), '|' .. name .. '|0')
  return 1
end

local rec = K.step(root, id)
local f = redis.call('HMGET', rec, 's', 'w', 't', 'g', 'un', 'a')
if f[1] ~= 'h' or f[2] ~= worker or f[3] ~= take then return 0 end
local attempts, generation = tonumber(f[6]) - 1, tonumber(f[4]) + 1
-- What it was unserved for before an attempt was made is another story.
local known = string.match(f[5] or '', '^' .. attempts .. '|(%d+)|')
local since = tonumber(known or now)
if what == 'version' and ARGV[7] == '1' and now - since >= UNKNOWN_MS
  and redis.call('SISMEMBER', K.cancelled(root), id) == 1 then
  return 3
end
redis.call('HDEL', K.held(worker), take)
redis.call('HSET', rec, 'a', attempts, 'g', generation)
if what == 'task' and now - since >= UNKNOWN_MS then
  condemn_step(root, id, rec, queue, lane, message, 'unknown task', words, now)
  return 2
end
redis.call('HSET', rec, 'un', attempts .. '|' .. ms_text(since) .. '|' .. what .. '|' .. words)
redis.call('ZADD', K.unserved(), ms_text(since), root .. '|' .. id)
place(root, id, rec, queue, lane, generation, rest_of(message), due_after(since), now)
if not known then note_step(root, rec, id, 'unserved', now, { error = words }) end
return 1
