-- time, topic, fence, last step to retire, first step to keep.
local topic, fence, current = ARGV[2], tonumber(ARGV[3]), counted(ARGV[2], 'fence')
if current ~= fence or fence == 0 then return {'fenced', current} end
for _, step in ipairs(redis.call('ZRANGEBYSCORE', key(topic, 'steps'), '-inf', ARGV[4])) do
  redis.call('ZREM', key(topic, 'steps'), step)
  redis.call('HDEL', key(topic, 'plans'), step)
  redis.call('ZADD', key(topic, 'kept'), step, step)
  count(topic, 'finished', #names_of(topic, step))
end
for _, step in ipairs(redis.call('ZRANGEBYSCORE', key(topic, 'kept'), '-inf', '(' .. ARGV[5])) do
  local gone = {}
  for _, name in ipairs(names_of(topic, step)) do discard(gone, string.match(name, '^(%d+)/(%d+)$')) end
  delete(topic, gone)
  redis.call('HDEL', key(topic, 'items'), step)
  redis.call('ZREM', key(topic, 'kept'), step)
end
return {'ok'}
