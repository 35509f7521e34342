-- time, operation, topic, fence, step, plan, then topic, place and token of each lease.
local operation, topic, fence, step = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
if done_before(operation) then return {'ok'} end
local current = counted(topic, 'fence')
if current ~= fence or fence == 0 then return {'fenced', current} end
local next = tonumber(redis.call('HGET', key(topic, 'count'), 'next_step') or step)
if step < next then return {'assigned'} end
if step > next then return {'gap', next} end
local groups, gone = leases(7, (#ARGV - 6) / 3, 3)
if gone then return {'lost', gone} end
local places = groups[topic] and groups[topic].places or {}
unlease(topic, places)
many('HDEL', key(topic, 'tries'), places)
redis.call('HSET', key(topic, 'count'), 'next_step', step + 1)
redis.call('ZADD', key(topic, 'steps'), step, ARGV[5])
redis.call('HSET', key(topic, 'plans'), ARGV[5], ARGV[6])
redis.call('HSET', key(topic, 'items'), ARGV[5], table.concat(places, ' '))
remember(operation, '')
return {'ok'}
