-- time, lease in microseconds, then topic, place and token of each.
local groups, gone = leases(3, (#ARGV - 2) / 3, 3)
if gone then return {'lost', gone} end
local expires = now() + tonumber(ARGV[2])
for topic, group in pairs(groups) do
  local scores = {}
  for i, place in ipairs(group.places) do scores[2 * i - 1], scores[2 * i] = expires, place end
  many('ZADD', key(topic, 'leased'), scores)
end
return {'ok'}
