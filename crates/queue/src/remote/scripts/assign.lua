-- time, operation, topic, fence, step, plan, leases in groups.
local operation, topic, fence, step = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
if done_before(operation) then return {'ok'} end
local current = counted(topic, 'fence')
if current ~= fence or fence == 0 then return {'fenced', current} end
local next = tonumber(redis.call('HGET', key(topic, 'count'), 'next_step') or step)
if step < next then return {'assigned'} end
if step > next then return {'gap', next} end
local groups, takes, _, gone = leases(7, true)
if gone then return {'lost', gone} end
local names = {}
for _, group in ipairs(groups) do
  for _, ticket in ipairs(group.tickets) do names[#names + 1] = (leased_item(ticket)) end
end
unlease(takes)
redis.call('HSET', key(topic, 'count'), 'next_step', string.format('%.0f', step + 1))
redis.call('ZADD', key(topic, 'steps'), step, ARGV[5])
redis.call('HSET', key(topic, 'plans'), ARGV[5], ARGV[6])
redis.call('HSET', key(topic, 'items'), ARGV[5], table.concat(names, ' '))
remember(operation, '')
return {'ok'}
