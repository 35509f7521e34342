-- time, operation, topic, then the ids.
local topic, places = ARGV[3], {}
if done_before(ARGV[2]) then return {'ok'} end
for i = 4, #ARGV do
  local place = redis.call('HGET', key(topic, 'ids'), ARGV[i])
  if not place or places[place] or redis.call('HEXISTS', key(topic, 'dead'), place) == 0 then return {'not_dead', i - 4} end
  places[place] = true
end
for place in pairs(places) do
  redis.call('HDEL', key(topic, 'dead'), place)
  give_back(topic, place)
end
remember(ARGV[2], '')
changed()
return {'ok'}
