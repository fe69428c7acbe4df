-- Messages that stand in no lane: of delayed and of parked steps. A key of their own beside the record, since one long
-- value would cost a small hash its compact form: five times the memory.

-- What nearly every message says, shortest by far as one byte. JSON text never holds these bytes itself. A message that
-- differs (another version of Celery's) is kept with what it differs in: nothing depends on a phrase being found.
local PHRASES = {
  [3] = '","content-encoding":"utf-8","content-type":"application/json","headers":{"lang":"py","task":"',
  [4] = '","shadow":null,"eta":null,"expires":null,"group":null,"group_index":null,"retries":0,"timelimit":[',
  [5] = '],"root_id":"',
  [6] = '","parent_id":',
  [7] = ',"argsrepr":"',
  [8] = '","kwargsrepr":"{}","origin":"',
  [11] = '","ignore_result":false,"replaced_task_nesting":0,"stamped_headers":null,"stamps":{},"agentq":{"k":"',
  [12] = '},"properties":{"correlation_id":"',
  [14] = '","reply_to":"',
  [15] = '","delivery_mode":2,"delivery_info":{"exchange":"","routing_key":"',
  [16] = ',"body_encoding":"base64","delivery_tag":"',
  -- As another broker's transport words the same.
  [20] = '","delivery_mode":2,"priority":',
  [21] = ',"delivery_info":{"exchange":"","routing_key":"',
  -- The end of a body without callbacks, in base64 behind 0, 1 and 2 bytes of a group; then the one without arguments.
  [17] = 'XSwge30sIHsiY2FsbGJhY2tzIjogbnVsbCwgImVycmJhY2tzIjogbnVsbCwgImNoYWluIjogbnVsbCwgImNob3JkIjogbnVsbH1d',
  [18] = 'IHt9LCB7ImNhbGxiYWNrcyI6IG51bGwsICJlcnJiYWNrcyI6IG51bGwsICJjaGFpbiI6IG51bGwsICJjaG9yZCI6IG51bGx9XQ==',
  [19] = 'LCB7fSwgeyJjYWxsYmFja3MiOiBudWxsLCAiZXJyYmFja3MiOiBudWxsLCAiY2hhaW4iOiBudWxsLCAiY2hvcmQiOiBudWxsfV0=',
}
local PACKED = '\31'
-- A larger message would not get much smaller by it.
local LONGEST_PACKED = 8192

local function shortened(text, phrase, code)
  local first, last = string.find(text, phrase, 1, true)
  while first do
    text = string.sub(text, 1, first - 1) .. string.char(code) .. string.sub(text, last + 1)
    first, last = string.find(text, phrase, first + 1, true)
  end
  return text
end

local function packed(root, id, text)
  if #text > LONGEST_PACKED then return text end
  text = shortened(text, root, 1)
  if id ~= root then text = shortened(text, id, 2) end
  for code, phrase in pairs(PHRASES) do text = shortened(text, phrase, code) end
  return PACKED .. text
end

local function unpacked(root, id, text)
  if string.sub(text, 1, 1) ~= PACKED then return text end
  local meanings = { [string.char(1)] = root, [string.char(2)] = id }
  for code, phrase in pairs(PHRASES) do meanings[string.char(code)] = phrase end
  return (string.gsub(string.sub(text, 2), '[\1-\30]', meanings))
end

local function keep(root, id, rest)
  redis.call('SET', K.message(root, id), packed(root, id, rest))
end

-- The message that is kept for a step, whose way goes on now.
local function take_kept(root, id)
  local key = K.message(root, id)
  local text = redis.call('GET', key)
  redis.call('DEL', key)
  return unpacked(root, id, text)
end

local function forget_kept(root, id)
  redis.call('DEL', K.message(root, id))
end
