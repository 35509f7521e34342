-- time, topic.
local topic, answer, places = ARGV[2], {'ok'}, redis.call('HKEYS', key(ARGV[2], 'dead'))
table.sort(places, function(a, b) return tonumber(a) < tonumber(b) end)
for _, place in ipairs(places) do
  local deliveries, reason = string.match(redis.call('HGET', key(topic, 'dead'), place), '^(%d+):(.*)$')
  answer[#answer + 1] = {tonumber(deliveries), reason, redis.call('HGET', key(topic, 'bodies'), place) or ''}
end
return answer
