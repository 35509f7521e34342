-- time, topic.
local topic, answer = ARGV[2], {'ok'}
for _, step in ipairs(redis.call('ZRANGE', key(topic, 'kept'), 0, -1)) do
  answer[#answer + 1] = {step, bodies_of(topic, step)}
end
return answer
