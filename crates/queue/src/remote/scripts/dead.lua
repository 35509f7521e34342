-- time, topic. Deliveries, reason and body of each dead letter.
local topic, answer, places = ARGV[2], {'ok'}, redis.call('HKEYS', key(ARGV[2], 'dead'))
table.sort(places, function(a, b) return tonumber(a) < tonumber(b) end)
for i, row in ipairs(read(key(topic, 'dead'), places)) do
  local deliveries, name, reason = string.match(row, '^(%d+) (%S+) (.*)$')
  answer[i + 1] = {tonumber(deliveries), reason, body(topic, name)}
end
return answer
