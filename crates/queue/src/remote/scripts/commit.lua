-- time, operation, most deliveries, leases in groups, number of targets, of each target its topic, capacity, number of ids and ids; batch.
local operation, limit, batch = ARGV[2], tonumber(ARGV[3]), ARGV[#ARGV]
local groups, at, gone = leases(4, true)
local outputs = {}
for i = 1, tonumber(ARGV[at]) do
  local n = tonumber(ARGV[at + 3])
  outputs[i] = {topic = ARGV[at + 1], capacity = tonumber(ARGV[at + 2]), from = at + 4, n = n}
  at = at + 3 + n
end

-- Looks at all that the commit is about, and returns why it is not to be done.
local function refusal()
  if done_before(operation) then return {'ok'} end
  if gone then return {'lost', gone} end
  for _, output in ipairs(outputs) do
    output.new, output.known = fresh(output.topic, output.from, output.n)
    local before = waiting(output.topic)
    if #output.new > 0 and before >= output.capacity then return {'full', output.topic, output.capacity, before} end
  end
end

local function retry(topic, group)
  local back, dead = {}, {}
  for i, row in ipairs(group.rows) do
    local place, name, deliveries = group.places[i], leased_item(row)
    if deliveries >= limit then
      dead[#dead + 1] = place
      dead[#dead + 1] = deliveries .. ' ' .. name .. ' ' .. group.reason
    else
      back[#back + 1] = place
      back[#back + 1] = ticket(place, name, deliveries)
    end
  end
  count(topic, 'retried', #group.rows)
  many('HSET', key(topic, 'dead'), dead)
  give_back(topic, back)
end

local refused = refusal()
if refused then
  for _, output in ipairs(outputs) do redis.call('DEL', key(output.topic, 'batch:' .. batch)) end
  return refused
end
for _, group in ipairs(groups) do
  local topic = group.topic
  unlease(topic, group.places)
  if group.what == 'retry' then
    retry(topic, group)
  else
    local ended = {}
    for _, row in ipairs(group.rows) do discard(ended, string.match(row, '^%d+ %d+:(%d+)/(%d+)')) end
    delete(topic, ended)
    if group.what == 'moved' then
      count(topic, 'finished', #group.rows)
    else
      redis.call('HINCRBY', key(topic, 'dropped'), group.reason, #group.rows)
    end
  end
end
for _, output in ipairs(outputs) do append(output.topic, batch, output.from, output.new, output.known) end
remember(operation, '')
return {'ok'}
