-- What all scripts share. KEYS[1] is the run's prefix, with its hash tag; ARGV[1] the time in microseconds, or '' for the server's.
--
-- Of a topic there are, after KEYS[1]:<topic>:
--   count    hash of counters              dropped  hash of reason to number
--   ids      hash of id to place           waiting  sorted set by place of tickets: what waits
--   held     hash of token to `ticket ticket ...|holder`: what one take leased, or a part of it, so that ending it costs no command an item
--   leased   sorted set by expiry of tokens
--   dead     hash of place to `deliveries name reason`
--   steps, kept  sorted sets of steps      plans, items  hashes of step to its plan and to the names of its items
--   batch:<operation>  hash of number to body, which a client writes in the transaction of the script that takes it over
--   bodies:<place>     the same once it was taken over, under the place of its first item
-- An item's name is `<first place>/<number>`: where its body lies. Its ticket is `<place>:<name>`, with `:<deliveries>` once it was handed out, and
-- `@<expiry>` while its lease was renewed without the others of its take.
-- Bodies stay out of Lua wherever they can be many: copying 4 KB in and out costs more than all else that a script does.
--
-- A script looks first and writes only when nothing can stop it any more: Redis takes nothing back. What must work on a full server deletes
-- first, because such a server refuses a script only until its first write.
local run = KEYS[1]

local function now()
  if ARGV[1] ~= '' then return tonumber(ARGV[1]) end
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function key(topic, part) return run .. ':' .. topic .. ':' .. part end

local function count(topic, name, by)
  if by > 0 then redis.call('HINCRBY', key(topic, 'count'), name, by) end
end

local function counted(topic, name) return tonumber(redis.call('HGET', key(topic, 'count'), name) or 0) end

local function waiting(topic) return redis.call('ZCARD', key(topic, 'waiting')) end

-- Wakes who waits for items of a topic, or for room in it.
local function changed(topic, what) redis.call('PUBLISH', run .. ':changed', topic .. ' ' .. what) end

-- Calls a command with a list that may be longer than Lua's stack; pairs stay together.
local function many(command, key, list)
  for from = 1, #list, 2000 do
    redis.call(command, key, unpack(list, from, math.min(from + 1999, #list)))
  end
end

-- Reads the values of a hash's fields, false for those that it has not.
local function read(key, fields)
  if #fields > 0 and #fields <= 2000 then return redis.call('HMGET', key, unpack(fields)) end
  local values = {}
  for from = 1, #fields, 2000 do
    for _, value in ipairs(redis.call('HMGET', key, unpack(fields, from, math.min(from + 1999, #fields)))) do
      values[#values + 1] = value
    end
  end
  return values
end

local function ticket(place, name, deliveries)
  if deliveries == 0 then return place .. ':' .. name end
  return place .. ':' .. name .. ':' .. deliveries
end

-- Returns name and deliveries of a leased item, this delivery included.
local function leased_item(ticket)
  local name, before = string.match(ticket, '^%d+:([^:@]+):?(%d*)')
  return name, (tonumber(before) or 0) + 1
end

-- Returns what is held under a token: the places in order, and the tickets by place.
local function taken(topic, token)
  local row = redis.call('HGET', key(topic, 'held'), token)
  if not row then return nil end
  local list, holder = string.match(row, '^([^|]*)|(.*)$')
  local take = {topic = topic, token = token, holder = holder, places = {}, tickets = {}, named = {}, left = 0}
  for ticket, place in string.gmatch(list, '((%d+):%S+)') do
    take.left = take.left + 1
    take.places[take.left], take.tickets[place] = place, ticket
  end
  return take
end

-- Writes what is held under a token: the tickets of `taken` that are still there.
local function hold(take)
  local held, tickets = key(take.topic, 'held'), {}
  for _, place in ipairs(take.places) do tickets[#tickets + 1] = take.tickets[place] end
  redis.call('HDEL', held, take.token)
  if #tickets == 0 then
    redis.call('ZREM', key(take.topic, 'leased'), take.token)
  else
    redis.call('HSET', held, take.token, table.concat(tickets, ' ') .. '|' .. take.holder)
  end
end

-- Splits the ids from ARGV[from] on into those that the topic does not know yet and the others; returns their numbers, from 0.
local function fresh(topic, from, n)
  local ids, new, known, seen = {}, {}, {}, {}
  for i = 1, n do ids[i] = ARGV[from + i - 1] end
  for i, place in ipairs(read(key(topic, 'ids'), ids)) do
    local id = ids[i]
    if place or seen[id] then
      known[#known + 1] = i - 1
    else
      seen[id] = true
      new[#new + 1] = i - 1
    end
  end
  return new, known
end

-- Puts what `fresh` returned at the end of a topic, and takes its bodies over.
local function append(topic, batch, from, new, known)
  local written = key(topic, 'batch:' .. batch)
  many('HDEL', written, known)
  count(topic, 'duplicates', #known)
  if #new == 0 then return end
  redis.call('SADD', run .. ':topics', topic)
  local place = redis.call('HINCRBY', key(topic, 'count'), 'put', #new) - #new
  local bodies = key(topic, 'bodies:' .. string.format('%d', place))
  redis.call('RENAME', written, bodies)
  redis.call('PERSIST', bodies)
  -- As text: Redis prints a number of Lua's as a fraction, which takes longer than all the rest.
  local format, first, ids, tickets = string.format, ':' .. string.format('%d', place) .. '/', {}, {}
  for i = 1, #new do
    local number, text = new[i], format('%d', place + i - 1)
    ids[2 * i - 1], ids[2 * i] = ARGV[from + number], text
    tickets[2 * i - 1], tickets[2 * i] = text, text .. first .. format('%d', number)
  end
  many('HSET', key(topic, 'ids'), ids)
  many('ZADD', key(topic, 'waiting'), tickets)
  changed(topic, 'items')
end

-- Reads leases in groups from ARGV[at] on: their number, then of each the topic, the token, what becomes of the items, for which reason, and number and
-- list of places. Returns the groups with their tickets, the takes that they are of, what follows them, and which lease, from 0, is the first that is
-- not held, or is named twice where it is to end.
local function leases(at, ends)
  local groups, takes, by_token, before, gone = {}, {}, {}, 0, nil
  local n = tonumber(ARGV[at])
  at = at + 1
  for g = 1, n do
    local topic, token, size = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 4])
    local take = by_token[topic .. ' ' .. token]
    if not take then
      take = taken(topic, token) or {tickets = {}, named = {}, left = 0}
      by_token[topic .. ' ' .. token] = take
      takes[#takes + 1] = take
    end
    local group, named = {topic = topic, what = ARGV[at + 2], reason = ARGV[at + 3], tickets = {}}, take.named
    for i = 1, size do
      local place = ARGV[at + 4 + i]
      local ticket = take.tickets[place]
      if not gone and (not ticket or ends and named[place]) then gone = before + i - 1 end
      if not named[place] then take.left = take.left - 1 end
      named[place], group.tickets[i] = true, ticket
    end
    groups[g], before, at = group, before + size, at + 5 + size
  end
  return groups, takes, at, gone
end

-- Ends the leases that `leases` read.
local function unlease(takes)
  for _, take in ipairs(takes) do
    for place in pairs(take.named) do take.tickets[place] = nil end
    hold(take)
  end
end

-- Puts leased items back to their places, so many deliveries back; those that were delivered too often become dead letters where there is a limit.
local function give_back(topic, tickets, deliveries_back, limit, reason)
  local back, dead = {}, {}
  for _, held in ipairs(tickets) do
    local place = string.match(held, '^%d+')
    local name, deliveries = leased_item(held)
    if limit and deliveries >= limit then
      dead[#dead + 1] = place
      dead[#dead + 1] = deliveries .. ' ' .. name .. ' ' .. reason
    else
      back[#back + 1] = place
      back[#back + 1] = ticket(place, name, deliveries - deliveries_back)
    end
  end
  many('HSET', key(topic, 'dead'), dead)
  many('ZADD', key(topic, 'waiting'), back)
  if #back > 0 then changed(topic, 'items') end
end

-- Notes an item to be deleted with others of its batch.
local function discard(batches, first, number)
  local numbers = batches[first]
  if not numbers then
    numbers = {}
    batches[first] = numbers
  end
  numbers[#numbers + 1] = number
end

local function delete(topic, batches)
  for first, numbers in pairs(batches) do many('HDEL', key(topic, 'bodies:' .. first), numbers) end
end

-- Returns the names of a step's items.
local function names_of(topic, step)
  local names = {}
  for name in string.gmatch(redis.call('HGET', key(topic, 'items'), step) or '', '%S+') do names[#names + 1] = name end
  return names
end

-- Reads a body through Lua, for calls that are rare.
local function body(topic, name)
  local first, number = string.match(name, '^(%d+)/(%d+)$')
  return redis.call('HGET', key(topic, 'bodies:' .. first), number) or ''
end

local function bodies_of(topic, step)
  local bodies = names_of(topic, step)
  for i, name in ipairs(bodies) do bodies[i] = body(topic, name) end
  return bodies
end

-- An operation whose answer was lost is asked for again under the same name.
local function done_before(operation) return redis.call('GET', run .. ':done:' .. operation) end

-- Longer than a client has patience.
local function remember(operation, answer) redis.call('SET', run .. ':done:' .. operation, answer, 'EX', 120) end
