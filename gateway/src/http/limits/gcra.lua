-- GCRA, the generic cell rate algorithm: one number per key, the theoretical arrival time (TAT) of the next request,
-- in microseconds of Redis' clock.
-- KEYS[1]: the key that is limited. ARGV: the interval between requests (us), the burst, the mode, how many requests.
-- take: if one request is allowed, counts all of them; those that come after wait until they are paid off. owe: counts
-- all of them, allowed or not. drain: counts as many of them as are allowed. give: takes them back from the count.
-- Returns 0 if it is allowed, else the microseconds to wait.
local interval = tonumber(ARGV[1])
local tolerance = interval * tonumber(ARGV[2])
local all = interval * tonumber(ARGV[4])
local time = redis.call("TIME")
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local tat = math.max(tonumber(redis.call("GET", KEYS[1]) or now), now)

if ARGV[3] == "give" then
  local back = tat - all
  if back <= now then
    redis.call("DEL", KEYS[1])
  else
    redis.call("SET", KEYS[1], string.format("%.0f", back), "PX", math.ceil((back - now) / 1000))
  end
  return 0
end

if ARGV[3] == "take" then
  local wait = tat + interval - tolerance - now
  if wait > 0 then
    return math.ceil(wait)
  end
elseif ARGV[3] == "drain" then
  local left = math.max(math.floor((now + tolerance - tat) / interval), 0)
  all = math.min(all, left * interval)
end
local next_tat = tat + all
if next_tat > now then
  redis.call("SET", KEYS[1], string.format("%.0f", next_tat), "PX", math.ceil((next_tat - now) / 1000))
end
return 0
