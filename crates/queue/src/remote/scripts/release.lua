-- time, operation, leases in groups.
if done_before(ARGV[2]) then return {'ok'} end
local groups, _, gone = leases(3, true)
if gone then return {'lost', gone} end
for _, group in ipairs(groups) do
  local back = {}
  for i, row in ipairs(group.rows) do
    local name, deliveries = leased_item(row)
    back[2 * i - 1], back[2 * i] = group.places[i], ticket(group.places[i], name, deliveries - 1)
  end
  unlease(group.topic, group.places)
  give_back(group.topic, back)
end
remember(ARGV[2], '')
return {'ok'}
