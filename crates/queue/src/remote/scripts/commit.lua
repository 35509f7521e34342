-- time, operation, most deliveries, number of inputs, then topic, place, token, what and reason of each; then topic, capacity and number of outputs
-- of each target, with id and item of each output.
local operation, limit, n = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
if done_before(operation) then return {'ok'} end
local groups, gone = leases(5, n, 5)
if gone then return {'lost', gone} end
local outputs, at = {}, 5 + 5 * n
while at <= #ARGV do
  local topic, capacity, items = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local new, duplicates = fresh(topic, at + 3, items)
  local before = waiting(topic)
  if #new > 0 and before >= capacity then return {'full', topic, capacity, before} end
  outputs[#outputs + 1] = {topic, new, duplicates}
  at = at + 3 + 2 * items
end
for topic, group in pairs(groups) do
  local ended, finished = {}, 0
  unlease(topic, group.places)
  for j, place in ipairs(group.places) do
    local what, reason = ARGV[8 + 5 * group.at[j]], ARGV[9 + 5 * group.at[j]]
    if what == 'retry' then
      count(topic, 'retried', 1)
      give_back(topic, place, tried(topic, place) >= limit and reason)
    else
      if what == 'moved' then finished = finished + 1 else redis.call('HINCRBY', key(topic, 'dropped'), reason, 1) end
      ended[#ended + 1] = place
    end
  end
  count(topic, 'finished', finished)
  many('HDEL', key(topic, 'bodies'), ended)
  many('HDEL', key(topic, 'tries'), ended)
end
for _, output in ipairs(outputs) do append(output[1], output[2], output[3]) end
remember(operation, '')
changed()
return {'ok'}
