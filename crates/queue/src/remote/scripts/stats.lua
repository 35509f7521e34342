-- time. Of each topic: name, counters, dropped by reason, waiting, assigned, kept, dead, held.
local answer = {'ok'}
for _, topic in ipairs(redis.call('SMEMBERS', run .. ':topics')) do
  local function items(steps)
    local n = 0
    for _, step in ipairs(redis.call('ZRANGE', key(topic, steps), 0, -1)) do n = n + #names_of(topic, step) end
    return n
  end
  answer[#answer + 1] = {
    topic, redis.call('HGETALL', key(topic, 'count')), redis.call('HGETALL', key(topic, 'dropped')), waiting(topic),
    items('steps'), items('kept'), redis.call('HVALS', key(topic, 'dead')),
    redis.call('HVALS', key(topic, 'held')),
  }
end
return answer
