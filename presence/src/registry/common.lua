-- What all scripts of the registry share. KEYS[1] is the installation's prefix, ARGV[1] the hysteresis in ms, ARGV[2]
-- the life of a key that nobody touches, in s. The keys:
--   presence:gateways        sorted set: gateway -> when it was last heard
--   presence:gateway:<g>     hash: the last report, the snapshot under way, the last whole one
--   presence:sessions:<g>    sorted set: "user:session" -> the report that confirmed it last
--   presence:user:<u>        hash: session -> "o|gateway|since|device", or "a|..." for away
--   presence:gone:<u>        when the user last lost a session
--   presence:due             sorted set: user -> when a held step down is decided
--   presence:news            sorted set: user -> when to announce them (again)
--   presence:text            hash: user -> what to announce
--   presence:ticks           hash: when instances last looked for the silent and the due, and since when without a break
--   announced:<u>            what was decided last of a user who is not offline; gateways read it
-- All clocks are Redis's, so that instances agree.

local P = KEYS[1]
local HYSTERESIS = tonumber(ARGV[1])
local LIFE = tonumber(ARGV[2])
local time = redis.call('TIME')
local NOW = time[1] * 1000 + math.floor(time[2] / 1000)
local RANK = { o = 2, a = 1, f = 0 }

local function int(number)
  return string.format('%.0f', number)
end

-- The best of the user's sessions.
local function derived(user)
  local best = 'f'
  for _, value in ipairs(redis.call('HVALS', P .. 'presence:user:' .. user)) do
    if string.sub(value, 1, 1) == 'o' then return 'o' end
    best = 'a'
  end
  return best
end

-- Decides what the user is. A step up counts at once; a step down only when the user has not been back within the
-- hysteresis after losing a session.
local function settle(user)
  local want = derived(user)
  local announced = redis.call('GET', P .. 'announced:' .. user)
  local have = announced and string.sub(announced, 1, 1) or 'f'
  if want == have then
    redis.call('ZREM', P .. 'presence:due', user)
    if announced then redis.call('EXPIRE', P .. 'announced:' .. user, LIFE) end
    return
  end
  local gone = tonumber(redis.call('GET', P .. 'presence:gone:' .. user) or 0)
  if RANK[want] < RANK[have] and NOW < gone + HYSTERESIS then
    redis.call('ZADD', P .. 'presence:due', int(gone + HYSTERESIS), user)
    return
  end
  redis.call('ZREM', P .. 'presence:due', user)
  local text = want .. ':' .. int(want == 'f' and gone > 0 and gone or NOW)
  if want == 'f' then
    redis.call('DEL', P .. 'announced:' .. user)
  else
    redis.call('SET', P .. 'announced:' .. user, text, 'EX', LIFE)
  end
  redis.call('HSET', P .. 'presence:text', user, text)
  redis.call('ZADD', P .. 'presence:news', int(NOW), user)
end

local function connect(gateway, report, user, session, value)
  local key = P .. 'presence:user:' .. user
  redis.call('HSET', key, session, value)
  redis.call('EXPIRE', key, LIFE)
  redis.call('ZADD', P .. 'presence:sessions:' .. gateway, 'GT', report, user .. ':' .. session)
end

-- `lost`: the registry may have forgotten that the session was there. The user is then taken to have been announced,
-- so that their leaving is news.
local function disconnect(gateway, user, session, lost)
  local known = redis.call('HDEL', P .. 'presence:user:' .. user, session) == 1
  redis.call('ZREM', P .. 'presence:sessions:' .. gateway, user .. ':' .. session)
  if not (known or lost) then return false end
  local announced = P .. 'announced:' .. user
  if lost and redis.call('EXISTS', announced) == 0 then
    redis.call('SET', announced, 'o:' .. int(NOW), 'EX', LIFE)
  end
  redis.call('SET', P .. 'presence:gone:' .. user, int(NOW), 'PX', int(2 * HYSTERESIS + 60000))
  return true
end

-- Whether instances have looked here for the silent and the due for so long (ms) without a break. After a break (all of
-- them were dead, or Redis stood still) silence proves nothing yet: reports are still on their way. A look that was
-- asked for before the break and runs after it is caught by this, too.
local function steady(long)
  local key = P .. 'presence:ticks'
  local last = tonumber(redis.call('HGET', key, 'last') or 0)
  if NOW - last > long / 3 then redis.call('HSET', key, 'since', int(NOW)) end
  redis.call('HSET', key, 'last', int(NOW))
  redis.call('EXPIRE', key, LIFE)
  return NOW - tonumber(redis.call('HGET', key, 'since')) >= long
end

local function member(text)
  return string.match(text, '^(%d+):(.+)$')
end
