-- time, operation, then topic, place and token of each.
if done_before(ARGV[2]) then return {'ok'} end
local groups, gone = leases(3, (#ARGV - 2) / 3, 3)
if gone then return {'lost', gone} end
for topic, group in pairs(groups) do
  unlease(topic, group.places)
  for _, place in ipairs(group.places) do
    redis.call('HINCRBY', key(topic, 'tries'), place, -1)
    give_back(topic, place)
  end
end
remember(ARGV[2], '')
changed()
return {'ok'}
