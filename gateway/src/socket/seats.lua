-- The places of users' sessions. KEYS[1] is what all our keys begin with. The keys:
--   seats:<u>          sorted set: "gateway:session" -> until when the place is held
--   seats:gateway:<g>  exists while the gateway lives
-- ARGV: 1 the most places of a user, 2 for how long (ms) a place is held after its client was last heard, 3 the gateway,
-- then user, session, and how long (ms) its client has been silent, for each place. Returns for each 1: held, 0: there
-- is none. All clocks are Redis's, so that gateways agree.

local ALIVE_MS = 5000
local P, LIMIT, HOLD, GATEWAY = KEYS[1] .. 'seats:', tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local time = redis.call('TIME')
local NOW = time[1] * 1000 + math.floor(time[2] / 1000)

local function int(number)
  return string.format('%.0f', number)
end

-- Clears the places of gateways that died: their devices come back elsewhere.
local function clear_dead(key)
  for _, member in ipairs(redis.call('ZRANGE', key, 0, -1)) do
    local gateway = string.match(member, '^(.-):')
    if redis.call('EXISTS', P .. 'gateway:' .. gateway) == 0 then redis.call('ZREM', key, member) end
  end
end

redis.call('SET', P .. 'gateway:' .. GATEWAY, 1, 'PX', ALIVE_MS)
local held = {}
for at = 4, #ARGV, 3 do
  local key, member = P .. ARGV[at], GATEWAY .. ':' .. ARGV[at + 1]
  redis.call('ZREMRANGEBYSCORE', key, '-inf', int(NOW))
  local has = redis.call('ZSCORE', key, member)
  if not has and redis.call('ZCARD', key) >= LIMIT then clear_dead(key) end
  if has or redis.call('ZCARD', key) < LIMIT then
    redis.call('ZADD', key, int(NOW + HOLD - tonumber(ARGV[at + 2])), member)
    redis.call('PEXPIRE', key, int(HOLD))
    table.insert(held, 1)
  else
    table.insert(held, 0)
  end
end
return held
