-- time, topic, capacity, then id and item of each.
local topic, capacity = ARGV[2], tonumber(ARGV[3])
local new, duplicates = fresh(topic, 4, (#ARGV - 3) / 2)
local before = waiting(topic)
if #new > 0 and before > 0 and before + #new / 2 > capacity then return {'full', topic, capacity, before} end
append(topic, new, duplicates)
if #new > 0 then changed() end
return {'ok', #new / 2, duplicates}
