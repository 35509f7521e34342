-- time, operation, then topic, place and token of each.
if done_before(ARGV[2]) then return {'ok'} end
local gone = lost(3, (#ARGV - 2) / 3, 3)
if gone then return {'lost', gone} end
for i = 3, #ARGV, 3 do
  local topic, place = ARGV[i], ARGV[i + 1]
  unlease(topic, place)
  redis.call('HINCRBY', key(topic, 'tries'), place, -1)
  give_back(topic, place)
end
remember(ARGV[2], '')
changed()
return {'ok'}
