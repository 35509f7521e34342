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
local popped = redis.call('ZPOPMIN', key(topic, 'waiting'), most)
if #popped == 0 then
  local next = redis.call('ZRANGE', key(topic, 'leased'), 0, 0, 'WITHSCORES')[2]
  return {'ok', next and string.format('%.0f', next - time) or ''}
end
local token = next_token()
local answer, places, leased, held = {'ok', '', token}, {}, {}, {}
local expiry, start, holder = string.format('%.0f', time + lease), token .. ' ', ' ' .. who
for i = 1, #popped, 2 do
  local given, place = popped[i], popped[i + 1]
  places[#places + 1], answer[#answer + 1] = place, given
  leased[i], leased[i + 1] = expiry, place
  held[i], held[i + 1] = place, start .. given .. holder
end
many('ZADD', key(topic, 'leased'), leased)
many('HSET', key(topic, 'held'), held)
remember(operation, token .. ' ' .. table.concat(places, ' '))
changed(topic, 'room')
return answer
