-- time, lease in microseconds, then topic, place and token of each.
local gone = lost(3, (#ARGV - 2) / 3, 3)
if gone then return {'lost', gone} end
local expires = now() + tonumber(ARGV[2])
for i = 3, #ARGV, 3 do redis.call('ZADD', key(ARGV[i], 'leased'), expires, ARGV[i + 1]) end
return {'ok'}
