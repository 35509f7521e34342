-- time, operation, topic, consumer, most items, lease in microseconds, most deliveries.
local operation, topic, who, most = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local lease, limit, time = tonumber(ARGV[6]), tonumber(ARGV[7]), now()
local answer = {'ok', ''}

local function hand_out(place, token)
  answer[#answer + 1] = {place, token, tried(topic, place), redis.call('HGET', key(topic, 'bodies'), place) or ''}
end

local before = done_before(operation)
if before then
  for place, token in string.gmatch(before, '(%d+):(%d+)') do
    if holds(topic, place, token) then hand_out(place, token) end
  end
  return answer
end
for _, place in ipairs(redis.call('ZRANGEBYSCORE', key(topic, 'leased'), '-inf', time)) do
  unlease(topic, place)
  count(topic, 'expired', 1)
  give_back(topic, place, tried(topic, place) >= limit and 'lease ran out too often')
end
local given = {}
for _, place in ipairs(redis.call('ZRANGE', key(topic, 'waiting'), 0, most - 1)) do
  local token = tostring(redis.call('INCR', run .. ':token'))
  redis.call('ZREM', key(topic, 'waiting'), place)
  redis.call('HINCRBY', key(topic, 'tries'), place, 1)
  redis.call('ZADD', key(topic, 'leased'), time + lease, place)
  redis.call('HSET', key(topic, 'held'), place, token .. ':' .. who)
  given[#given + 1] = place .. ':' .. token
  hand_out(place, token)
end
if #given > 0 then
  remember(operation, table.concat(given, ' '))
  changed()
else
  local next = redis.call('ZRANGE', key(topic, 'leased'), 0, 0, 'WITHSCORES')[2]
  if next then answer[2] = string.format('%.0f', next - time) end
end
return answer
