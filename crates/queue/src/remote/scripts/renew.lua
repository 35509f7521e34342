-- time, lease in microseconds, leases in groups.
local _, takes, _, gone = leases(3, false)
if gone then return {'lost', gone} end
local expires = string.format('%.0f', now() + tonumber(ARGV[2]))
for _, take in ipairs(takes) do
  local leased, whole, marked = key(take.topic, 'leased'), take.left == 0, false
  for place in pairs(take.named) do
    local ticket = take.tickets[place]
    local bare = string.match(ticket, '^[^@]+')
    marked = marked or bare ~= ticket
    take.tickets[place] = whole and bare or bare .. '@' .. expires
  end
  if not whole or marked then hold(take) end
  if whole then
    -- Deleted first, so that work goes on under its lease on a full server.
    redis.call('ZREM', leased, take.token)
    redis.call('ZADD', leased, expires, take.token)
  end
end
return {'ok'}
