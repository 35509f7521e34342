-- time, operation, leases in groups.
if done_before(ARGV[2]) then return {'ok'} end
local groups, takes, _, gone = leases(3, true)
if gone then return {'lost', gone} end
unlease(takes)
for _, group in ipairs(groups) do give_back(group.topic, group.tickets, 1) end
remember(ARGV[2], '')
return {'ok'}
