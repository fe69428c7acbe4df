"""The rules that checks are shown to need: each by its text in a script, and what stands there when it is left out."""

from __future__ import annotations

from typing import Final

Rules = dict[str, tuple[str, str]]
"""By name: the rule's text, and its replacement."""

_HOLDER: Final = "if f[1] ~= 'h' or f[2] ~= h.worker or f[3] ~= tostring(h.take) then\n  return { 0"
_TAKEN: Final = "if f[1] ~= 'q' or f[2] ~= generation then return nil end"

STEP_RULES: Final[Rules] = {
    "commit by anybody": (_HOLDER, "if false then\n  return { 0"),
    "take whatever is there": (_TAKEN, ""),
    "take by the dead": ("if redis.call('EXISTS', K.dead(worker)) == 1 then return { 0 } end", ""),
    "take anew for an old token": ("if c[1] == token then", "if false then"),
    "commit twice for one token": ("if f[4] == h.token then\n  if h.next", "if false then\n  if h.next"),
    "record what is known": ("if f[1] then return 0 end", ""),
    "release the same generation": (
        "local generation, rest = tonumber(f[4]) + 1, ",
        "local generation, rest = tonumber(f[4]), ",
    ),
    "forget what the dead held": (
        "local gone = give_back(worker, takes[i], company_of(worker), now)",
        "local gone = redis.call('HDEL', K.held(worker), takes[i])",
    ),
    "keep what was committed": ("redis.call('HDEL', K.held(h.worker), h.take)\n", ""),
    "fire no timers": ("if r[2] == generation and r[1] == 'l' then", "if false then"),
    "give the living away": (
        "redis.call('ZRANGEBYSCORE', K.workers(), '-inf', now, ",
        "redis.call('ZRANGEBYSCORE', K.workers(), '-inf', '+inf', ",
    ),
}

GOING_ON_RULES: Final[Rules] = {
    "forget what was gone on with": ("if known ~= token then return reply end", "if true then return reply end"),
    "lose what a child had gone on with": (
        "local gone = next and give_back(worker, next, company, now) or 0",
        "local gone = 0",
    ),
}

OWN_STEP_RULES: Final[Rules] = {
    "ring for nobody who has the turn now": (
        " and told.worker == f[6] and tostring(told.take) == f[7]",
        "",
    ),
}

RUN_RULES: Final[Rules] = {
    "park over what has come": ("if redis.call('LLEN', K.log(root, run)) > seen then return 0 end", ""),
    "park anew for an old word": ("if f[5] == worker .. '|' .. take then return 1 end", ""),
    "wake by no signal": ("if waited == name then wake(root, run, now) break end", ""),
    "tell without a wake": ("stamped(entry, now))\n  wake(root, run, now, urgent)", "stamped(entry, now))"),
    "rest without an end": ("redis.call('ZADD', K.due(), f[5], name)\n      return", "return"),
    "append a signal twice": ("if seen then return", "if false then return"),
    "send twice for one token": ("if f[4] == h.token then return reply() end", ""),
    "send by anybody": (
        _HOLDER,
        "if false then\n  return { 0",
    ),
    "forget what came late": ("for _, entry in ipairs(late) do redis.call('RPUSH', log, entry) end", ""),
    "wake whatever its state": (
        "if f[1] == 'p' then\n    local name",
        "if f[1] == 'p' or f[1] == 'q' then\n    redis.call('SETNX', K.message(root, run), '{\"a\":1}')\n"
        "    local name",
    ),
    "keep what was parked": ("redis.call('HDEL', K.held(worker), take)\nredis.call('DEL'", "redis.call('DEL'"),
}

JOIN_RULES: Final[Rules] = {
    "count every word": (
        "if place < 0 or place >= size or redis.call('SETBIT', bits, place, 1) == 1 then return end",
        "",
    ),
    "count strangers": ("place < 0 or place >= size or ", ""),
    "release again": ("if f[3] ~= '0' then return end", ""),
    "never release an empty one": ("if j.size == 0 then release_join(j.root, j.id, now) end", ""),
    "count every branch": ("redis.call('SADD', bits, index) == 0", "redis.call('SADD', bits, index) == 2"),
    "let the join go with its release": ("redis.call('HSET', rec, 'tr', root)", "leave_tree(root)"),
    "ignore need": (" and not (f[2] and ok >= tonumber(f[2]))", ""),
}

GUARD_RULES: Final[Rules] = {
    "reserve nothing": ("add(digest, g, 'o', 1)", ""),
    "let the dead keep their places": (
        "settle_guards(root, id, f[7], { lost = true, ok = f[5] == '1' and 0 or nil }, now)",
        "",
    ),
    "charge nothing for the dead": ("if how.lost then", "if false then"),
    "settle what was settled": ("redis.call('HDEL', rec, 'gd')\n  settle_guards(h.root", "settle_guards(h.root"),
    "as many probes as come": ("return number(g, 'pn') + number(g, 'ok') < tonumber(g.pk)", "return true"),
    "keep a dead prober's place": ("add(digest, g, 'pn', -1)\n", "if ok then add(digest, g, 'pn', -1) end\n"),
    "let late ones overtake": ("if has_line(digest, g, ticket) then return false end", ""),
    "reserve over the budget": (
        "elseif used >= limit or used + (wish or 0) > limit then",
        "elseif used >= limit then",
    ),
    "count too many tokens": ("or spent + tokens <= tonumber(g.tk)", "or spent <= tonumber(g.tk)"),
    "call nobody": ("    advance(entry.d, g, now)\n  end\n\n  -- Ends all", "  end\n\n  -- Ends all"),
    "run what no budget has room for": ("if late then want.steps = 1 end", "late = false"),
}

CACHE_RULES: Final[Rules] = {
    "let all make it": ("if g.k == 'c' then return number(g, 'o') < 1 or", "if g.k == 'c' then return true or"),
    "hold others back for good": ("< 1 or kept_answer(digest, g.nm) ~= nil end", "< 1 end"),
    "answer what was dropped": (
        "if not f[1] or f[1] ~= (redis.call('HGET', K.caches(), 'ep|' .. name) or '0') then",
        "if not f[1] then",
    ),
    "keep what was dropped meanwhile": (
        "if epoch ~= tonumber(redis.call('HGET', K.caches(), 'ep|' .. name) or 0) then return end",
        "epoch = tonumber(redis.call('HGET', K.caches(), 'ep|' .. name) or 0)",
    ),
    "keep it for ever": ("redis.call('PEXPIRE', key, string.format('%.0f', answer.ms))", ""),
    "hand it on with each try": ("if h.c and entry.k == 'c' and entry.d == h.c.d then called", "if false then called"),
    "count what was answered as an attempt": (
        "redis.call('HINCRBY', rec, 'a', -1)\n    -- It gets no hedge",
        "-- It gets no hedge",
    ),
    "leave its flight behind": ("if g.k == 'c' and not busy then", "if false then"),
    "keep a place that is not used": ("  give_up_place()\n  -- Who waits for it", "  -- Who waits for it"),
}

HEDGE_RULES: Final[Rules] = {
    "take it where the first runs": ("if first[1] == 'h' and first[2] == worker then return true end", ""),
    "start it on a busy pool": ("if waiting > 0 or not free then", "if not free then"),
    "start it without a free place": ("if waiting > 0 or not free then", "if waiting > 0 then"),
    "answer twice": ("if redis.call('HEXISTS', rec, 'aw') == 1 then return false end", ""),
    "answer with a failure": ("if status == 'FAILURE' and runs then return false end", ""),
    "never answer with a failure": ("if status == 'FAILURE' and runs then", "if status == 'FAILURE' then"),
    "leave the loser running": ("redis.call('HSET', its, 'aw', id)", ""),
    "let the loser wait": ("if f[1] == 'l' then end_wait(root, other, its, now) end", ""),
    "charge the loser nothing": (
        "  spend(h.root, h.usage, h.accounts, now)\n  finish(h.root, h.id, h.status, nil",
        "  finish(h.root, h.id, h.status, nil",
    ),
    "let both arrive": ("if f[3] and f[4] and not silent then", "if f[3] and f[4] then"),
    "delete what the other still needs": (
        "if f[2] and redis.call('HGET', its, 's') ~= 'd' then",
        "if false then",
    ),
    "start it beyond the budget": (
        "if first_short(accounts, { steps = 1, depth = ours.dp }, now) then return false end",
        "",
    ),
    "start it for the cancelled": (
        "f[10] ~= 's' or is_cancelled(root, id, rec) then return end",
        "f[10] ~= 's' then return end",
    ),
    "let it outlive a cancel": ("if f[7] and redis.call('SISMEMBER', key, f[7]) == 1 then return true end", ""),
    "keep its timer": (
        "redis.call('ZREM', K.hedges(), root .. '|' .. id .. '|' .. generation)\n  if status",
        "if status",
    ),
    "hedge the old generation": (
        "if f[1] ~= 'h' or f[2] ~= generation or f[5]",
        "if f[1] ~= 'h' or f[5]",
    ),
}

STOP_RULES: Final[Rules] = {
    "take what stands still": ("local stopped = flags ~= 1 and stopped_above(root, id, rec)", "local stopped = nil"),
    "stop what stands above it": (
        "if redis.call('SISMEMBER', key, 'stop|' .. run) == 1 then return run end",
        "if redis.call('SCARD', key) > 0 then return run end",
    ),
    "look at its own run alone": ("run = redis.call('HGET', K.step(root, run), 'pr') or root", "return nil"),
    "stop an undo": ("if f[3] then return nil end", ""),
    "hold the cancelled": ("if redis.call('SISMEMBER', key, run) == 1 then return nil end", ""),
    "let the last go first": ("local front = g.k ~= 'z'\n", "local front = 'z'\n"),
    "stop what has moved": ("if seen >= 0 and redis.call('LLEN', K.log(root, run)) ~= seen then return -3 end", ""),
    "send below a stopped run": (
        "local stopped = stopped_above(h.root, h.id, rec)",
        "local stopped = h.stop and h.id",
    ),
    "send what stops it": ("local stopped = stopped_above(h.root, h.id, rec)", "local stopped = nil"),
    "forget what was asked": ("ask = string.sub(ask, 1, -2) .. ',\"again\":1}'", "ask = ask"),
    "keep the turn's custody": (
        "redis.call('HDEL', K.held(h.worker), h.take)\n  redis.call('DEL', K.wake",
        "redis.call('DEL', K.wake",
    ),
    "leave its line at its end": ("if f[7] == 'a' then end_stop(root, id, rec, now) end", ""),
    "tell its journal nothing": (
        'tell(root, run, \'{"k":"resume","allow":\' .. ARGV[5] .. \'}\', now)',
        "",
    ),
    "keep the reason": ("redis.call('HDEL', rec, 'st')\n  hold_gate", "hold_gate"),
}

RARE_RULES: Final[Rules] = {
    "forget what there is no room for": (
        "redis.call('RPUSH', backlog_of(o.q, o.l, tenant), o.root .. '|' .. o.id .. '|' .. o.g)",
        "",
    ),
    "let in whatever its record says": (
        "if f[1] == 'l' and f[2] == generation and redis.call('ZSCORE', K.due(), name) == false then",
        "if f[1] then",
    ),
    "take an old generation": (_TAKEN, "if f[1] ~= 'q' then return nil end"),
    "let a cancel wait": (",\"why\":' .. ARGV[5] .. '}', now, true)", ",\"why\":' .. ARGV[5] .. '}', now)"),
}
"""What the machines do not meet every time: shown by a search of every order, or by hand."""

LANE_RULES: Final[Rules] = {
    "take the lowest lane first": ("through({ 0, 3, 6, 9 }, most - share)", "through({ 9, 6, 3, 0 }, most - share)"),
    "give the lower lanes nothing": (
        "local share = low > 0 and math.floor((before + most) / low) - math.floor(before / low) or 0",
        "local share = 0",
    ),
    "give the share to the most urgent": ("return { oldest, 9, 6, 3, 0 }", "return { 0, 3, 6, 9 }"),
    "go on with one tenant": ("not entry or served + 1 >= weight_of(tenant)", "not entry"),
    "weigh nobody": ("return WEIGHTS[redis.sha1hex(tenant)] or WEIGHT_OF_OTHERS", "return 9"),
    "leave the tenantless out of the turns": ("redis.call('RPUSH', turns, '0|')\n", ""),
    "forget whose line it is": ("if length > 1 then return end", "if true then return end"),
    "hand back to the end": (
        "local at = front and 'RPUSH' or 'LPUSH'",
        "local at = 'LPUSH'",
    ),
    "count no line": ("if entry and tenant ~= '' and way == 'fused' then count_line(queue, lane, -1) end", ""),
    "let nothing rise": ("if age > longest then oldest, longest = lane, age end", ""),
    "tell no hint of what is taken": ("        count_line(queue, lane, -1)\n", "        unlist(name, queue, lane)\n"),
}
