-- time, operation, topic, consumer, most items, lease in microseconds, most deliveries.
local operation, topic, who, most = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local lease, limit, time = tonumber(ARGV[6]), tonumber(ARGV[7]), now()
local answer = {'ok', ''}

-- Places, tokens and deliveries of what is handed out.
local function hand_out(places, tokens, tries)
  for i, body in ipairs(bodies_of(topic, places)) do answer[i + 2] = {places[i], tokens[i], tries[i], body} end
  return answer
end

local before = done_before(operation)
if before then
  local places, tokens = {}, {}
  for place, token in string.gmatch(before, '(%d+):(%d+)') do
    local held = redis.call('HGET', key(topic, 'held'), place)
    if held and string.match(held, '^%d+') == token then
      places[#places + 1] = place
      tokens[#tokens + 1] = token
    end
  end
  return hand_out(places, tokens, read(key(topic, 'tries'), places))
end
local expired = redis.call('ZRANGEBYSCORE', key(topic, 'leased'), '-inf', time)
if #expired > 0 then
  unlease(topic, expired)
  count(topic, 'expired', #expired)
  for _, place in ipairs(expired) do give_back(topic, place, tried(topic, place) >= limit and 'lease ran out too often') end
end
local places = redis.call('ZRANGE', key(topic, 'waiting'), 0, most - 1)
if #places == 0 then
  local next = redis.call('ZRANGE', key(topic, 'leased'), 0, 0, 'WITHSCORES')[2]
  if next then answer[2] = string.format('%.0f', next - time) end
  return answer
end
local token = redis.call('INCRBY', run .. ':token', #places) - #places
local tries = read(key(topic, 'tries'), places)
local tokens, tried, leased, held, given = {}, {}, {}, {}, {}
for i, place in ipairs(places) do
  tokens[i], tries[i] = tostring(token + i), (tonumber(tries[i]) or 0) + 1
  tried[2 * i - 1], tried[2 * i] = place, tries[i]
  leased[2 * i - 1], leased[2 * i] = time + lease, place
  held[2 * i - 1], held[2 * i] = place, tokens[i] .. ':' .. who
  given[i] = place .. ':' .. tokens[i]
end
redis.call('ZREMRANGEBYRANK', key(topic, 'waiting'), 0, #places - 1)
many('HSET', key(topic, 'tries'), tried)
many('ZADD', key(topic, 'leased'), leased)
many('HSET', key(topic, 'held'), held)
remember(operation, table.concat(given, ' '))
changed()
return hand_out(places, tokens, tries)
