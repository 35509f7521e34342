-- time, operation, topic, consumer, most items, lease in microseconds, most deliveries. Returns after how long the next lease runs out if nothing was
-- taken, then the token and the tickets of what was; the bodies are read without Lua.
local operation, topic, who, most = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local lease, limit, time = tonumber(ARGV[6]), tonumber(ARGV[7]), now()

-- Returns what was taken before and is still held.
local function again(before)
  local token, list = string.match(before, '^(%d+) (.*)$')
  local answer, places = {'ok', '', token}, {}
  for place in string.gmatch(list, '%d+') do places[#places + 1] = place end
  for _, row in ipairs(read(key(topic, 'held'), places)) do
    local held, given = string.match(row or '', '^(%d+) (%S+) ')
    if held == token then answer[#answer + 1] = given end
  end
  return answer
end

local function recover()
  local expired = redis.call('ZRANGEBYSCORE', key(topic, 'leased'), '-inf', time)
  if #expired == 0 then return end
  local back, dead = {}, {}
  for i, row in ipairs(read(key(topic, 'held'), expired)) do
    local place, name, deliveries = expired[i], leased_item(row)
    if deliveries >= limit then
      dead[#dead + 1] = place
      dead[#dead + 1] = deliveries .. ' ' .. name .. ' lease ran out too often'
    else
      back[#back + 1] = place
      back[#back + 1] = ticket(place, name, deliveries)
    end
  end
  unlease(topic, expired)
  count(topic, 'expired', #expired)
  many('HSET', key(topic, 'dead'), dead)
  give_back(topic, back)
end

-- Returns a token that was never given, also not by a server that forgot its last second: its time has moved on.
local function next_token()
  local clock = redis.call('TIME')
  local token = math.max(tonumber(redis.call('GET', run .. ':token') or 0) + 1, clock[1] * 1000000 + clock[2])
  token = string.format('%.0f', token)
  redis.call('SET', run .. ':token', token)
  return token
end

local before = done_before(operation)
if before then return again(before) end
recover()
-- Without the scores, which Redis prints as fractions.
local tickets = redis.call('ZRANGE', key(topic, 'waiting'), 0, most - 1)
if #tickets == 0 then
  local next = redis.call('ZRANGE', key(topic, 'leased'), 0, 0, 'WITHSCORES')[2]
  return {'ok', next and string.format('%.0f', next - time) or ''}
end
redis.call('ZREMRANGEBYRANK', key(topic, 'waiting'), 0, #tickets - 1)
local token = next_token()
local answer, places, leased, held = {'ok', '', token}, {}, {}, {}
local expiry, start, holder = string.format('%.0f', time + lease), token .. ' ', ' ' .. who
for i, given in ipairs(tickets) do
  local place = string.match(given, '^%d+')
  places[i], answer[i + 3] = place, given
  leased[2 * i - 1], leased[2 * i] = expiry, place
  held[2 * i - 1], held[2 * i] = place, start .. given .. holder
end
many('ZADD', key(topic, 'leased'), leased)
many('HSET', key(topic, 'held'), held)
remember(operation, token .. ' ' .. table.concat(places, ' '))
changed(topic, 'room')
return answer
