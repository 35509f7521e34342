-- time, topic, first step.
local topic, answer = ARGV[2], {'ok'}
for _, step in ipairs(redis.call('ZRANGEBYSCORE', key(topic, 'steps'), ARGV[3], '+inf')) do
  answer[#answer + 1] = {step, redis.call('HGET', key(topic, 'plans'), step), bodies_of(topic, step)}
end
return answer
