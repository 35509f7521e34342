-- What all scripts share. KEYS[1] is the run's prefix, with its hash tag; ARGV[1] the time in microseconds, or '' for the server's.
-- A script looks first and writes only when nothing can stop it any more: Redis takes nothing back.
local run = KEYS[1]

local function now()
  if ARGV[1] ~= '' then return tonumber(ARGV[1]) end
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function key(topic, part) return run .. ':' .. topic .. ':' .. part end

local function count(topic, name, by) redis.call('HINCRBY', key(topic, 'count'), name, by) end

local function counted(topic, name) return tonumber(redis.call('HGET', key(topic, 'count'), name) or 0) end

local function waiting(topic) return redis.call('ZCARD', key(topic, 'waiting')) end

local function changed() redis.call('PUBLISH', run .. ':changed', '') end

-- Calls a command with a list that may be longer than Lua's stack.
local function many(command, key, list)
  for from = 1, #list, 2000 do
    redis.call(command, key, unpack(list, from, math.min(from + 1999, #list)))
  end
end

-- Splits ids and items, from ARGV[from] on, into those that the topic does not know yet, and the number of the others.
local function fresh(topic, from, n)
  local known, new, duplicates, seen = key(topic, 'ids'), {}, 0, {}
  for i = from, from + 2 * n - 1, 2 do
    local id = ARGV[i]
    if seen[id] or redis.call('HEXISTS', known, id) == 1 then
      duplicates = duplicates + 1
    else
      seen[id] = true
      new[#new + 1] = id
      new[#new + 1] = ARGV[i + 1]
    end
  end
  return new, duplicates
end

-- Puts what `fresh` returned at the end of a topic.
local function append(topic, new, duplicates)
  redis.call('SADD', run .. ':topics', topic)
  local place, ids, bodies, places = counted(topic, 'next_place'), {}, {}, {}
  for i = 1, #new, 2 do
    ids[i], ids[i + 1] = new[i], place
    bodies[i], bodies[i + 1] = place, new[i + 1]
    places[i], places[i + 1] = place, place
    place = place + 1
  end
  many('HSET', key(topic, 'ids'), ids)
  many('HSET', key(topic, 'bodies'), bodies)
  many('ZADD', key(topic, 'waiting'), places)
  count(topic, 'next_place', #new / 2)
  count(topic, 'put', #new / 2)
  count(topic, 'duplicates', duplicates)
end

local function holds(topic, place, token)
  local held = redis.call('HGET', key(topic, 'held'), place)
  return held and string.match(held, '^%d+') == token
end

-- Looks for the first of n leases (topic, place, token and more, `width` in all) that is not held, or named twice; returns which.
local function lost(from, n, width)
  local seen = {}
  for i = 0, n - 1 do
    local topic, place, token = ARGV[from + i * width], ARGV[from + i * width + 1], ARGV[from + i * width + 2]
    local name = topic .. '/' .. place
    if seen[name] or not holds(topic, place, token) then return i end
    seen[name] = true
  end
end

local function unlease(topic, place)
  redis.call('ZREM', key(topic, 'leased'), place)
  redis.call('HDEL', key(topic, 'held'), place)
end

local function tried(topic, place) return tonumber(redis.call('HGET', key(topic, 'tries'), place) or 0) end

-- Puts an item back to its place, or to the dead letters for a reason.
local function give_back(topic, place, dead)
  if dead then
    redis.call('HSET', key(topic, 'dead'), place, tried(topic, place) .. ':' .. dead)
    redis.call('HDEL', key(topic, 'tries'), place)
  else
    redis.call('ZADD', key(topic, 'waiting'), place, place)
  end
end

local function places_of(topic, step)
  local places = {}
  for place in string.gmatch(redis.call('HGET', key(topic, 'items'), step) or '', '%d+') do places[#places + 1] = place end
  return places
end

local function bodies_of(topic, places)
  local bodies = {}
  for i, place in ipairs(places) do bodies[i] = redis.call('HGET', key(topic, 'bodies'), place) or '' end
  return bodies
end

-- An operation whose answer was lost is asked for again under the same name.
local function done_before(operation) return redis.call('GET', run .. ':done:' .. operation) end

local function remember(operation, answer) redis.call('SET', run .. ':done:' .. operation, answer, 'EX', 600) end
