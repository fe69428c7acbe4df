-- arrive: a plain Celery task, or a task that failed before it was taken, reaches its join.
-- include: common tree offer join
-- ARGV: per arrival root, join id, place (a number, or a task id), 1 succeeded | 0 failed
-- Reply: 1
-- Keeps: a join releases once, by the set of its members (4): a repeat moves nothing.
local now = now_ms()
for i = 1, #ARGV, 4 do arrive(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3] == '1', now) end
return 1
