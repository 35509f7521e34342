-- time, operation, most deliveries, leases in groups, number of targets, of each target its topic, capacity, number of ids and ids; batch.
local operation, limit, batch = ARGV[2], tonumber(ARGV[3]), ARGV[#ARGV]
local groups, takes, at, gone = leases(4, true)
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

local refused = refusal()
if refused then
  for _, output in ipairs(outputs) do redis.call('DEL', key(output.topic, 'batch:' .. batch)) end
  return refused
end
unlease(takes)
for _, group in ipairs(groups) do
  local topic, tickets = group.topic, group.tickets
  if group.what == 'retry' then
    count(topic, 'retried', #tickets)
    give_back(topic, tickets, 0, limit, group.reason)
  else
    local ended = {}
    for _, ticket in ipairs(tickets) do discard(ended, string.match(ticket, '^%d+:(%d+)/(%d+)')) end
    delete(topic, ended)
    if group.what == 'moved' then
      count(topic, 'finished', #tickets)
    else
      redis.call('HINCRBY', key(topic, 'dropped'), group.reason, #tickets)
    end
  end
end
for _, output in ipairs(outputs) do append(output.topic, batch, output.from, output.new, output.known) end
remember(operation, '')
return {'ok'}
