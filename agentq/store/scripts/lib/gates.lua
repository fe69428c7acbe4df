-- Gates: breakers, rates and limits that all workers share, and the flights of cached steps (kind c: one attempt makes the
-- answer, the others wait for it). A gate holds what running attempts have reserved, what ended
-- ones have used within its window (in SHARES buckets, never a member per call or token), and the line of steps that
-- wait for it in the order of their tickets. A reservation stands in its step's record (field gd) and ends in the script
-- that ends the attempt's custody, never by time (invariant 7). Who is called out of the line has reserved already, so
-- that nobody overtakes it; if no worker takes it soon, the next one is called, since no attempt runs on it yet.
-- include: common suspects cached

-- One closure for most scripts, which never come here.
local gates_made
local function gates()
  if gates_made then return gates_made end
  local G = {}
  -- A window is kept in so many buckets: what is counted leaves at most a twentieth of it too late, and never too early.
  local SHARES = 20
  -- How long a called step may take to be admitted before the next one is called.
  local CALL_MS = 5000
  -- Steps called by one script.
  local CHUNK = 100
  -- A gate that waits for an attempt's end is looked at so often all the same.
  local LOOK_MS = 60000
  -- An idle one is forgotten so long after its window has emptied.
  local IDLE_MS = 300000

  local function load(digest)
    local flat, g = redis.call('HGETALL', K.gate(digest)), {}
    for i = 1, #flat, 2 do g[flat[i]] = flat[i + 1] end
    return g
  end

  local function number(g, name) return tonumber(g[name] or 0) end

  local function put(digest, g, name, value)
    g[name] = value and tostring(value) or nil
    if value then redis.call('HSET', K.gate(digest), name, g[name]) else redis.call('HDEL', K.gate(digest), name) end
  end

  local function add(digest, g, name, amount)
    g[name] = string.format('%.0f', number(g, name) + amount)
    redis.call('HSET', K.gate(digest), name, g[name])
  end

  local function size_of(g) return math.ceil(tonumber(g.wn) / SHARES) end

  -- The buckets within the window, oldest first, as {number, first count, second count}; what is older is forgotten.
  local function buckets_of(digest, g, now)
    local first, found = math.floor(now / size_of(g)) - SHARES, {}
    for name, value in pairs(g) do
      local b = tonumber(string.match(name, '^b(%d+)$'))
      if b and b < first then
        redis.call('HDEL', K.gate(digest), name)
        g[name] = nil
      elseif b then
        local one, two = string.match(value, '^(%d+)|(%d+)$')
        found[#found + 1] = { b, tonumber(one), tonumber(two) }
      end
    end
    table.sort(found, function(a, b) return a[1] < b[1] end)
    return found
  end

  local function count(digest, g, bucket, one, two)
    local name = 'b' .. string.format('%.0f', bucket)
    local before_one, before_two = string.match(g[name] or '0|0', '^(%d+)|(%d+)$')
    put(digest, g, name, string.format('%.0f|%.0f', before_one + one, before_two + two))
  end

  -- Whether one more attempt with so many tokens may go through a rate or limit; if not, when it may by time alone, nil
  -- when only by another's end.
  local function rate_admits(digest, g, tokens, now)
    if g['in'] and number(g, 'o') >= tonumber(g['in']) then return false end
    if not g.wn then return true end
    local found, requests, spent = buckets_of(digest, g, now), number(g, 'o'), number(g, 'ot')
    for _, each in ipairs(found) do requests, spent = requests + each[2], spent + each[3] end
    -- An estimate above the whole limit goes when nothing else does: it would wait for ever.
    if g.tk then tokens = math.min(tokens, tonumber(g.tk)) end
    local function fits()
      return (not g.rq or requests + 1 <= tonumber(g.rq)) and (not g.tk or spent + tokens <= tonumber(g.tk))
    end
    if fits() then return true end
    for _, each in ipairs(found) do
      requests, spent = requests - each[2], spent - each[3]
      if fits() then return false, (each[1] + 1 + SHARES) * size_of(g) end
    end
    return false
  end

  local function opened(digest, g, now)
    -- Jitter by the server's clock: a script has no other chance.
    local chance = (redis.call('TIME')[2] % 1000) / 1000
    put(digest, g, 'st', 'open')
    put(digest, g, 'un', ms_text(now + tonumber(g.rs) * (1 + tonumber(g.jt) * chance)))
    put(digest, g, 'at', ms_text(now))
    add(digest, g, 'ep', 1)
    add(digest, g, 'tp', 1)
    put(digest, g, 'pn', nil)
    put(digest, g, 'ok', nil)
  end

  local function closed(digest, g)
    for name in pairs(g) do
      if string.match(name, '^b%d+$') then redis.call('HDEL', K.gate(digest), name) g[name] = nil end
    end
    for _, name in ipairs({ 'st', 'un', 'pn', 'ok', 'at' }) do put(digest, g, name, nil) end
    add(digest, g, 'ep', 1)
  end

  -- Half open it admits probes, so many that those under way and those that have succeeded are at most pk.
  local function breaker_admits(digest, g, now)
    if not g.st then return true end
    if g.st == 'open' then
      if now < tonumber(g.un) then return false, tonumber(g.un) end
      put(digest, g, 'st', 'half')
    end
    return number(g, 'pn') + number(g, 'ok') < tonumber(g.pk)
  end

  local function admits(digest, g, tokens, now)
    if g.k == 'b' then return breaker_admits(digest, g, now) end
    -- Once the answer is there all may go: they take it.
    if g.k == 'c' then return number(g, 'o') < 1 or kept_answer(digest, g.nm) ~= nil end
    -- A budget's line holds no place of its own: who is called asks the budget again.
    if g.k == 'a' then return true end
    -- That of a stopped run lets all go at once, or none.
    if g.k == 'z' then return not g.on end
    return rate_admits(digest, g, tokens, now)
  end

  -- Returns what the record keeps of it.
  local function reserve(digest, g, tokens, now)
    local entry = { d = digest, k = g.k }
    if g.k == 'b' then
      if g.st then
        entry.p = 1
        add(digest, g, 'pn', 1)
      end
      entry.ep = number(g, 'ep')
      return entry
    end
    if g.k == 'c' then
      redis.call('HSET', K.gate(digest), 'k', 'c', 'nm', g.nm)
      entry.ep = tonumber(redis.call('HGET', K.caches(), 'ep|' .. g.nm) or 0)
    end
    if g.tk then tokens = math.min(tokens, tonumber(g.tk)) else tokens = 0 end
    add(digest, g, 'o', 1)
    if tokens > 0 then add(digest, g, 'ot', tokens) end
    entry.n = tokens
    if g.wn then entry.b = math.floor(now / size_of(g)) end
    return entry
  end

  -- When the gate is to be looked at again; an idle one ends by itself.
  local function schedule(digest, g, now, at)
    local lapse = redis.call('ZRANGE', K.called(digest), 0, 0, 'WITHSCORES')[2]
    local busy = lapse or number(g, 'o') > 0 or number(g, 'pn') > 0 or redis.call('EXISTS', K.waiters(digest)) == 1
    -- An open breaker is remembered, whoever asks; what is idle goes soon: there may be one for each of many accounts.
    local keep = g.k == 'b' and g.st and RETENTION_MS or 2 * number(g, 'wn') + IDLE_MS
    if g.k == 'c' and not busy then
      -- One for each of many arguments: nothing of it is left.
      redis.call('DEL', K.gate(digest))
      redis.call('ZREM', K.gates(), digest)
      return
    end
    if busy then
      redis.call('PERSIST', K.gate(digest))
    else
      redis.call('PEXPIRE', K.gate(digest), string.format('%.0f', keep))
    end
    local look = math.min(at or now + (busy and LOOK_MS or keep + 1000), tonumber(lapse or now + RETENTION_MS))
    redis.call('ZADD', K.gates(), ms_text(look), digest)
  end

  -- Takes the next step out of a line if it still waits there: {root, id, record, queue, lane, generation, tokens}.
  local function head_of(line)
    while true do
      local name = redis.call('ZRANGE', line, 0, 0)[1]
      if not name then return nil end
      local root, id, generation = string.match(name, '^([^|]*)|([^|]*)|(%d+)$')
      local rec = K.step(root, id)
      local f = redis.call('HMGET', rec, 's', 'g', 'q', 'l', 'wc')
      if f[1] == 'l' and f[2] == generation then
        return { name = name, root = root, id = id, rec = rec, queue = f[3], lane = f[4], generation = generation,
          tokens = tonumber(f[5] or 0) }
      end
      redis.call('ZREM', line, name)
    end
  end

  -- Calls the steps at the head of a gate's line for as long as it admits them, and sets its next look.
  local function advance(digest, g, now)
    local line, at, called = K.waiters(digest), nil, {}
    while true do
      local head = head_of(line)
      if not head then break end
      if #called == CHUNK then at = now break end
      local fits, later = admits(digest, g, head.tokens, now)
      if not fits then at = later break end
      redis.call('ZREM', line, head.name)
      redis.call('HDEL', head.rec, 'ln', 'wc', 'zs')
      if g.k == 'r' or g.st or (g.k == 'c' and not kept_answer(digest, g.nm)) then
        local entry = reserve(digest, g, head.tokens, now)
        redis.call('HSET', head.rec, 'gd', cjson.encode({ g = { entry }, gr = 1 }))
        redis.call('ZADD', K.called(digest), ms_text(now + CALL_MS), head.root .. '|' .. head.id)
      end
      called[#called + 1] = head
    end
    -- In front of their lanes, the first of them foremost; what stood still comes behind what waits there, and in its order.
    local front = g.k ~= 'z'
    for i = 1, #called do
      local each = called[front and #called + 1 - i or i]
      local rest = take_kept(each.root, each.id)
      place_again(each.root, each.id, each.rec, each.queue, each.lane, each.generation, rest, now, front)
    end
    schedule(digest, g, now, at)
  end

  -- A probe, or a call from before: who began under another state says nothing of this one.
  local function report(digest, g, entry, ok, now)
    if number(g, 'ep') ~= entry.ep then return end
    if entry.p then
      add(digest, g, 'pn', -1)
      if ok == 0 then opened(digest, g, now) elseif ok == 1 then add(digest, g, 'ok', 1) end
      if g.st == 'half' and number(g, 'ok') >= tonumber(g.pk) then closed(digest, g) end
      return
    end
    if g.st or not ok then return end
    local bucket = math.floor(now / size_of(g))
    count(digest, g, bucket, 1, 1 - ok)
    local calls, errors = 0, 0
    for _, each in ipairs(buckets_of(digest, g, now)) do calls, errors = calls + each[2], errors + each[3] end
    if calls >= tonumber(g.vo) and errors >= calls * tonumber(g.rt) then opened(digest, g, now) end
  end

  -- Ends one reservation. how: ok = 1 | 0 | nil (says nothing), tokens that were used (nil: what was reserved), idle =
  -- no attempt ran on it.
  local function settle(entry, how, now)
    local g = load(entry.d)
    if not g.k then return end
    if entry.k == 'b' then
      report(entry.d, g, entry, how.ok, now)
    else
      add(entry.d, g, 'o', -1)
      if entry.k == 'c' and how.c then keep_answer(entry.d, g.nm, entry.ep, how.c) end
      if entry.n > 0 then add(entry.d, g, 'ot', -entry.n) end
      if entry.b and not how.idle and entry.b >= math.floor(now / size_of(g)) - SHARES then
        count(entry.d, g, entry.b, 1, g.tk and (how.tokens or entry.n) or 0)
      end
    end
    advance(entry.d, g, now)
  end

  -- Ends all that a record says is reserved (its field gd); the caller deletes that.
  function G.settle_all(root, id, text, how, now)
    local reserved = cjson.decode(text)
    if reserved.gr then
      how = { idle = true }
      for _, entry in ipairs(reserved.g) do redis.call('ZREM', K.called(entry.d), root .. '|' .. id) end
    end
    for _, entry in ipairs(reserved.g or {}) do settle(entry, how, now) end
  end

  -- The gate of a wish with its settings as they are declared now.
  function G.open(wish, now)
    local g = load(wish.d)
    if wish.k == 'c' then
      -- Written when somebody is at it, or waits: it ends with the last of them.
      g.k, g.nm = 'c', wish.nm
      return g
    end
    local is_new = not g.k
    local changed = {}
    for name, value in pairs(wish) do
      if name ~= 'd' and g[name] ~= tostring(value) then
        g[name] = tostring(value)
        changed[#changed + 1] = name
        changed[#changed + 1] = g[name]
      end
    end
    if #changed > 0 then redis.call('HSET', K.gate(wish.d), unpack(changed)) end
    -- Should the step be held up elsewhere, nobody else gives this one its end.
    if is_new then schedule(wish.d, g, now) end
    return g
  end

  -- Whether others stand in front of a step with this ticket; one without a ticket goes to the end.
  local function has_line(digest, g, ticket)
    if g.k == 'b' and not g.st then return false end
    local head = redis.call('ZRANGE', K.waiters(digest), 0, 0, 'WITHSCORES')[2]
    return head and (not ticket or tonumber(head) < tonumber(ticket))
  end

  -- Whether a place that a step was called to still is one: a breaker may have changed its mind since.
  function G.still_holds(g, entry)
    return entry.k ~= 'b' or number(g, 'ep') == entry.ep
  end

  function G.admits(digest, g, tokens, ticket, now)
    if has_line(digest, g, ticket) then return false end
    return admits(digest, g, tokens, now)
  end

  function G.reserve(digest, g, tokens, now)
    local entry = reserve(digest, g, tokens, now)
    schedule(digest, g, now)
    return entry
  end

  -- A step that ends its custody here stands in the gate's line from now on, at the place of its ticket.
  function G.queue(digest, g, root, id, rec, generation, tokens, ticket, now)
    redis.call('HSET', rec, 'ln', digest, 'wc', tokens)
    if g.k == 'c' then redis.call('HSET', K.gate(digest), 'k', 'c', 'nm', g.nm) end
    redis.call('ZADD', K.waiters(digest), ticket, root .. '|' .. id .. '|' .. generation)
    advance(digest, g, now)
  end

  -- What time brings a gate: called steps that no worker has taken lose their place, the next ones come.
  function G.look(digest, now)
    local g = load(digest)
    if not g.k then
      redis.call('ZREM', K.gates(), digest)
      return
    end
    for _, name in ipairs(redis.call('ZRANGEBYSCORE', K.called(digest), '-inf', now, 'LIMIT', 0, CHUNK)) do
      local root, id = string.match(name, '^([^|]*)|([^|]*)$')
      local rec = K.step(root, id)
      local f = redis.call('HMGET', rec, 's', 'gd')
      if f[1] == 'h' and f[2] then
        redis.call('ZADD', K.called(digest), ms_text(now + CALL_MS), name)
      elseif f[2] and cjson.decode(f[2]).gr then
        redis.call('HDEL', rec, 'gd')
        G.settle_all(root, id, f[2], { idle = true }, now)
        g = load(digest)
      else
        redis.call('ZREM', K.called(digest), name)
      end
    end
    advance(digest, g, now)
  end

  -- By a person's word.
  function G.trip(digest, span, now)
    local g = load(digest)
    if g.k ~= 'b' then return 0 end
    opened(digest, g, now)
    if span then put(digest, g, 'un', ms_text(now + span)) end
    schedule(digest, g, now, tonumber(g.un))
    return 1
  end

  function G.reset(digest, now)
    local g = load(digest)
    if g.k ~= 'b' then return 0 end
    closed(digest, g)
    advance(digest, g, now)
    return 1
  end

  gates_made = G
  return G
end

-- Ends what a record says is reserved (the text of its field gd, which the caller deletes). how as in G.settle_all;
-- lost: the attempt has died or was killed, and is charged what it had reserved.
local function settle_guards(root, id, text, how, now)
  local reserved = cjson.decode(text)
  for _, account in ipairs(reserved.a or {}) do
    for name, amount in pairs(account.r) do
      redis.call('HINCRBY', account.key, 'r_' .. name, -amount)
      if how.lost then redis.call('HINCRBY', account.key, 'n_' .. name, amount) end
    end
  end
  if #(reserved.g or {}) > 0 then gates().settle_all(root, id, text, how, now) end
end
