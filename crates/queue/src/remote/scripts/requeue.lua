-- time, operation, topic, then the ids.
local topic, ids, back, seen = ARGV[3], {}, {}, {}
if done_before(ARGV[2]) then return {'ok'} end
for i = 4, #ARGV do ids[i - 3] = ARGV[i] end
local places = read(key(topic, 'ids'), ids)
for i, place in ipairs(places) do
  local row = place and not seen[place] and redis.call('HGET', key(topic, 'dead'), place)
  if not row then return {'not_dead', i - 1} end
  seen[place] = true
  back[2 * i - 1], back[2 * i] = place, ticket(place, string.match(row, '^%d+ (%S+) '), 0)
end
many('HDEL', key(topic, 'dead'), places)
many('ZADD', key(topic, 'waiting'), back)
changed(topic, 'items')
remember(ARGV[2], '')
return {'ok'}
