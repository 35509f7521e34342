-- time, operation, topic, consumer, most items, lease in microseconds, most deliveries. Returns after how long the next lease runs out if nothing was
-- taken, then token and tickets of each part of what was; the bodies are read without Lua.
local operation, topic, who, most = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local lease, limit, time = tonumber(ARGV[6]), tonumber(ARGV[7]), now()
-- Items under one token: what a take leased is written anew whenever a part of it ends.
local PART = 64

-- Returns what was taken before and is still held.
local function again(before)
  local answer = {'ok', ''}
  for token in string.gmatch(before, '%d+') do
    local take = taken(topic, token)
    if take then
      local part = {token}
      for _, place in ipairs(take.places) do part[#part + 1] = string.match(take.tickets[place], '^[^@]+') end
      answer[#answer + 1] = part
    end
  end
  return answer
end

-- Puts back what the leases of a take do not hold any more; those that were renewed alone last longer.
local function expire(take)
  local expired, soonest = {}, nil
  for _, place in ipairs(take.places) do
    local ticket = take.tickets[place]
    local expiry = tonumber(string.match(ticket, '@(%d+)$'))
    if expiry and expiry > time then
      soonest = math.min(soonest or expiry, expiry)
    else
      expired[#expired + 1], take.tickets[place] = ticket, nil
    end
  end
  hold(take)
  if soonest then redis.call('ZADD', key(topic, 'leased'), string.format('%.0f', soonest), take.token) end
  count(topic, 'expired', #expired)
  give_back(topic, expired, 0, limit, 'lease ran out too often')
end

-- Returns the first of n tokens that were never given, also not by a server that forgot its last second: its time has moved on.
local function next_token(n)
  local clock = redis.call('TIME')
  local token = math.max(tonumber(redis.call('GET', run .. ':token') or 0) + 1, clock[1] * 1000000 + clock[2])
  redis.call('SET', run .. ':token', string.format('%.0f', token + n - 1))
  return token
end

local before = done_before(operation)
if before then return again(before) end
for _, token in ipairs(redis.call('ZRANGEBYSCORE', key(topic, 'leased'), '-inf', time)) do
  expire(taken(topic, token))
end
-- Without the scores, which Redis prints as fractions.
local tickets = redis.call('ZRANGE', key(topic, 'waiting'), 0, most - 1)
if #tickets == 0 then
  local next = redis.call('ZRANGE', key(topic, 'leased'), 0, 0, 'WITHSCORES')[2]
  return {'ok', next and string.format('%.0f', next - time) or ''}
end
redis.call('ZREMRANGEBYRANK', key(topic, 'waiting'), 0, #tickets - 1)
local token, answer, tokens = next_token(math.ceil(#tickets / PART)), {'ok', ''}, {}
for from = 1, #tickets, PART do
  local to, name = math.min(from + PART - 1, #tickets), string.format('%.0f', token + #tokens)
  redis.call('HSET', key(topic, 'held'), name, table.concat(tickets, ' ', from, to) .. '|' .. who)
  redis.call('ZADD', key(topic, 'leased'), string.format('%.0f', time + lease), name)
  tokens[#tokens + 1] = name
  answer[#answer + 1] = {name, unpack(tickets, from, to)}
end
remember(operation, table.concat(tokens, ' '))
changed(topic, 'room')
return answer
