-- time, topic.
redis.call('SADD', run .. ':topics', ARGV[2])
return {'ok', redis.call('HINCRBY', key(ARGV[2], 'count'), 'fence', 1)}
