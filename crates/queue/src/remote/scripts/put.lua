-- time, operation, topic, capacity, number of ids, ids, batch.
local operation, topic, capacity, n, batch = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[#ARGV]
local function without_batch(answer)
  redis.call('DEL', key(topic, 'batch:' .. batch))
  return answer
end
local before = done_before(operation)
if before then
  local added, duplicates = string.match(before, '(%d+) (%d+)')
  return without_batch({'ok', tonumber(added), tonumber(duplicates)})
end
local new, known = fresh(topic, 6, n)
local held = waiting(topic)
if #new > 0 and held > 0 and held + #new > capacity then return without_batch({'full', topic, capacity, held}) end
append(topic, batch, 6, new, known)
remember(operation, #new .. ' ' .. #known)
return {'ok', #new, #known}
