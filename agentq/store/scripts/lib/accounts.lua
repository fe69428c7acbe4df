-- Accounts: what a budget counts. The tree's is the one of its root run; a sub-agent with a budget of its own has one for
-- what stands below it, and an agent or tenant one for each day. A step is charged to all that its header names.
-- Fields: limits b_…, used n_…, reserved by running attempts r_…; x_… a limit that a person has refused to raise.
-- include: common

local DAY_MS = 86400000

-- name: '' the tree, '=digest' a day's (of today; '=digest:day' of that day), else a sub-agent's run.
local function account_key(root, name)
  if name == '' then return K.tree(root) end
  if string.sub(name, 1, 1) == '=' then return K.allowance(string.sub(name, 2)) end
  return K.account(root, name)
end

-- The accounts of a header with the day's names filled in and their limits written.
local function opened_accounts(root, listed, now)
  local found = {}
  for _, account in ipairs(listed or {}) do
    local name = account.k
    if string.sub(name, 1, 1) == '=' and not string.find(name, ':', 1, true) then
      name = name .. ':' .. math.floor(now / DAY_MS)
      local key = account_key(root, name)
      if redis.call('HEXISTS', key, 'raised') == 0 then
        for limit, amount in pairs(account.b or {}) do
          redis.call('HSET', key, 'b_' .. limit, string.format('%.0f', amount))
        end
      end
      redis.call('PEXPIRE', key, 2 * DAY_MS)
    end
    found[#found + 1] = { k = name, x = account.x, nm = account.nm, key = account_key(root, name) }
  end
  return found
end

local AMOUNTS = { 'steps', 'attempts', 'tokens', 'usd_micro', 'storage_bytes', 'depth', 'width' }

local function shown(limit, amount)
  if limit == 'usd' then return string.format('%.6f', amount / 1000000) end
  if limit == 'wall' then return string.format('%.3f s', amount / 1000) end
  return string.format('%.0f', amount)
end

-- Which limit of an account more of this would exceed; nil when none. Returns the limit's name, the limit, the use.
-- Depth and width are no sums; what is spent ends a step in front of the limit also when nothing is wished for.
local function shortage(key, want, now)
  local fields = { 'born', 'b_wall_ms' }
  for _, name in ipairs(AMOUNTS) do
    for _, letter in ipairs({ 'b_', 'n_', 'r_' }) do fields[#fields + 1] = letter .. name end
  end
  local f = redis.call('HMGET', key, unpack(fields))
  for i, name in ipairs(AMOUNTS) do
    local limit = tonumber(f[3 * i])
    if limit then
      local wish, used = want[name], tonumber(f[3 * i + 1] or 0) + tonumber(f[3 * i + 2] or 0)
      if name == 'depth' or name == 'width' then
        if (wish or 0) > limit then return name, limit, wish end
      elseif name == 'steps' or name == 'attempts' then
        if wish and used + wish > limit then return name, limit, used end
      elseif used >= limit or used + (wish or 0) > limit then
        return name == 'usd_micro' and 'usd' or name, limit, used
      end
    end
  end
  if f[1] and f[2] and now - f[1] >= tonumber(f[2]) then return 'wall', tonumber(f[2]), now - f[1] end
  return nil
end

-- The first of the accounts that is short, as {account, limit, allowed, used}; nil when none is.
local function first_short(accounts, want, now)
  for _, account in ipairs(accounts) do
    local limit, allowed, used = shortage(account.key, want, now)
    if limit then return { account = account, limit = limit, allowed = allowed, used = used } end
  end
  return nil
end

local function refusal_by(short)
  local fields = { limit_name = short.limit, limit = shown(short.limit, short.allowed),
    used = shown(short.limit, short.used) }
  if short.account.nm then fields.account = short.account.nm end
  return { code = 'budget_exceeded', fields = fields }
end

-- Whether a step over a limit goes on to its admission: a person is asked there, or a cheaper way is taken.
local function is_left_to_admission(short)
  local how = short.account.x
  if how == 'ask' then return short.limit ~= 'depth' and short.limit ~= 'width' end
  return how == 'degrade' and (short.limit == 'tokens' or short.limit == 'usd')
end

-- Counts a new step on its accounts. One that is over a limit is not counted, and told so at its take: its admission
-- refuses it then, or counts it after all.
local function count_step(o, rec, now)
  local accounts = opened_accounts(o.root, o.bg, now)
  if first_short(accounts, { steps = 1, depth = o.dp }, now) then
    redis.call('HSET', rec, 'ov', 'b')
    return
  end
  for _, account in ipairs(accounts) do redis.call('HINCRBY', account.key, 'n_steps', 1) end
end

-- What was used goes to the tree, and to the other accounts that the attempt names.
local function spend(root, usage, listed, now)
  if not usage then return end
  local accounts = listed and opened_accounts(root, listed, now) or {}
  for name, amount in pairs(usage) do
    local text = string.format('%.0f', amount)
    redis.call('HINCRBY', K.tree(root), 'n_' .. name, text)
    for _, account in ipairs(accounts) do
      if account.k ~= '' then redis.call('HINCRBY', account.key, 'n_' .. name, text) end
    end
  end
end

-- Reserves what an attempt is to use; returns what its record keeps of that.
local function reserve_at(account, want)
  local entry = { key = account.key, r = {} }
  for _, name in ipairs({ 'tokens', 'usd_micro' }) do
    local amount = want[name]
    if amount and amount > 0 then
      redis.call('HINCRBY', account.key, 'r_' .. name, string.format('%.0f', amount))
      entry.r[name] = amount
    end
  end
  for _, name in ipairs({ 'attempts', 'steps' }) do
    if want[name] then redis.call('HINCRBY', account.key, 'n_' .. name, want[name]) end
  end
  return entry
end

-- The line of the steps of a run that wait for a person's word about an account.
local function account_line(root, account)
  local digest = redis.sha1hex('account|' .. root .. '|' .. account.k)
  redis.call('HSET', K.gate(digest), 'k', 'a', 'nm', 'budget of ' .. (account.nm or root))
  return { k = 'a' }, digest
end

local function field_of(limit)
  return limit == 'usd' and 'usd_micro' or limit == 'wall' and 'wall_ms' or limit
end

local function is_refused(short)
  return redis.call('HEXISTS', short.account.key, 'x_' .. field_of(short.limit)) == 1
end

-- A question to a person, one for each account and limit of a tree at a time.
local function ask_to_raise(root, short, now)
  local _, digest = account_line(root, short.account)
  local field = 'q_' .. field_of(short.limit)
  local standing = redis.call('HGET', K.gate(digest), field)
  if standing and redis.call('HGET', K.ask(root, standing), 's') == 'open' then return end
  local id = redis.sha1hex(digest .. '|' .. field .. '|' .. redis.call('HINCRBY', K.tree(root), 'asked', 1))
  local allowed, used = shown(short.limit, short.allowed), shown(short.limit, short.used)
  local unit = short.limit == 'wall' and ', in seconds' or ''
  local card = { id = id, run = root, schema = { type = 'number' },
    q = 'The budget of ' .. (short.account.nm or 'run ' .. root) .. ' is reached: ' .. used .. ' of ' .. allowed .. ' '
      .. short.limit .. '. Which limit' .. unit .. ' from now on? The present one refuses what waits.',
    bud = { k = short.account.k, l = short.limit } }
  redis.call('HSET', K.gate(digest), field, id)
  redis.call('HSET', K.ask(root, id), 's', 'open', 'c', ms_text(now), 'card', cjson.encode(card))
  redis.call('ZADD', K.asks(), now, root .. '|' .. id)
  redis.call('RPUSH', K.members(root), 'q|' .. id)
  note(root, cjson.encode({ e = 'asked', s = id, n = card.q }), now)
end

-- A person's word: the limit from now on. One that is no higher than what stands refuses what waits.
local function raise_limit(root, raise, value, now)
  local key, field = account_key(root, raise.k), field_of(raise.l)
  local factor = raise.l == 'usd' and 1000000 or raise.l == 'wall' and 1000 or 1
  local amount = math.floor((tonumber(value) or 0) * factor)
  if amount > tonumber(redis.call('HGET', key, 'b_' .. field) or 0) then
    redis.call('HSET', key, 'b_' .. field, string.format('%.0f', amount), 'raised', 1)
    redis.call('HDEL', key, 'x_' .. field)
  else
    redis.call('HSET', key, 'x_' .. field, 1)
  end
  local _, digest = account_line(root, { k = raise.k })
  redis.call('ZADD', K.gates(), ms_text(now), digest)
end
