-- GCRA: one number per key, the theoretical arrival time (TAT) in microseconds of the server's clock.
-- KEYS[1]: the bucket. ARGV: emission interval (us), burst, mode ("take", "look", "give").
-- take: uses up one if there is one; look: only asks; give: puts one back.
-- Answers 0 when allowed, else the microseconds to wait.
local interval = tonumber(ARGV[1])
local tolerance = interval * tonumber(ARGV[2])
local time = redis.call("TIME")
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local tat = math.max(tonumber(redis.call("GET", KEYS[1]) or now), now)

if ARGV[3] == "give" then
  local back = tat - interval
  if back <= now then
    redis.call("DEL", KEYS[1])
  else
    redis.call("SET", KEYS[1], string.format("%.0f", back), "PX", math.ceil((back - now) / 1000))
  end
  return 0
end

local next_tat = tat + interval
local wait = next_tat - tolerance - now
if wait > 0 then
  return math.ceil(wait)
end
if ARGV[3] == "take" then
  redis.call("SET", KEYS[1], string.format("%.0f", next_tat), "PX", math.ceil((next_tat - now) / 1000))
end
return 0
