-- time, operation, topic, capacity, then id and item of each.
local operation, topic, capacity = ARGV[2], ARGV[3], tonumber(ARGV[4])
local before = done_before(operation)
if before then
  local added, duplicates = string.match(before, '(%d+) (%d+)')
  return {'ok', tonumber(added), tonumber(duplicates)}
end
local new, duplicates = fresh(topic, 5, (#ARGV - 4) / 2)
local held = waiting(topic)
if #new > 0 and held > 0 and held + #new / 2 > capacity then return {'full', topic, capacity, held} end
append(topic, new, duplicates)
remember(operation, #new / 2 .. ' ' .. duplicates)
if #new > 0 then changed() end
return {'ok', #new / 2, duplicates}
