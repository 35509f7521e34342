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

-- Reads the values of a hash's fields, false for those that it has not.
local function read(key, fields)
  local values = {}
  for from = 1, #fields, 2000 do
    for _, value in ipairs(redis.call('HMGET', key, unpack(fields, from, math.min(from + 1999, #fields)))) do
      values[#values + 1] = value
    end
  end
  return values
end

-- Splits ids and items, from ARGV[from] on, into those that the topic does not know yet, and the number of the others.
local function fresh(topic, from, n)
  local ids, new, duplicates, seen = {}, {}, 0, {}
  for i = 0, n - 1 do ids[i + 1] = ARGV[from + 2 * i] end
  for i, place in ipairs(read(key(topic, 'ids'), ids)) do
    local id = ids[i]
    if place or seen[id] then
      duplicates = duplicates + 1
    else
      seen[id] = true
      new[#new + 1] = id
      new[#new + 1] = ARGV[from + 2 * i - 1]
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

-- Gathers n leases (topic, place, token and more, `width` in all) by topic, and looks for the first that is not held, or named twice; returns which.
local function leases(from, n, width)
  local groups, order, gone = {}, {}, nil
  for i = 0, n - 1 do
    local topic = ARGV[from + i * width]
    if not groups[topic] then
      groups[topic] = {places = {}, at = {}}
      order[#order + 1] = topic
    end
    local group = groups[topic]
    group.places[#group.places + 1] = ARGV[from + i * width + 1]
    group.at[#group.at + 1] = i
  end
  for _, topic in ipairs(order) do
    local group, seen = groups[topic], {}
    for j, held in ipairs(read(key(topic, 'held'), group.places)) do
      local i, place = group.at[j], group.places[j]
      local good = held and not seen[place] and string.match(held, '^%d+') == ARGV[from + i * width + 2]
      if not good and (not gone or i < gone) then gone = i end
      seen[place] = true
    end
  end
  return groups, gone
end

local function unlease(topic, places)
  many('ZREM', key(topic, 'leased'), places)
  many('HDEL', key(topic, 'held'), places)
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
  local bodies = read(key(topic, 'bodies'), places)
  for i, body in ipairs(bodies) do bodies[i] = body or '' end
  return bodies
end

-- An operation whose answer was lost is asked for again under the same name.
local function done_before(operation) return redis.call('GET', run .. ':done:' .. operation) end

-- Longer than a client has patience.
local function remember(operation, answer) redis.call('SET', run .. ':done:' .. operation, answer, 'EX', 120) end
