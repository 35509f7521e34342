-- time, lease in microseconds, leases in groups.
local groups, _, gone = leases(3, false)
if gone then return {'lost', gone} end
local expires = string.format('%.0f', now() + tonumber(ARGV[2]))
for _, group in ipairs(groups) do
  local scores = {}
  for i, place in ipairs(group.places) do scores[2 * i - 1], scores[2 * i] = expires, place end
  -- Deleted first, so that work goes on under its lease on a full server.
  many('ZREM', key(group.topic, 'leased'), group.places)
  many('ZADD', key(group.topic, 'leased'), scores)
end
return {'ok'}
