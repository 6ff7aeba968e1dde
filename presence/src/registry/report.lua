-- One report of a gateway. ARGV: 3 gateway, 4 report, 5 how many came, then user, session, value of each that came
-- and user, session of each that went. Returns 0: known already, 1: applied, 2: applied, but one before it is missing.

local gateway, report, came = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local gateway_key = P .. 'presence:gateway:' .. gateway
local last = tonumber(redis.call('HGET', gateway_key, 'report') or -1)
if report <= last then return 0 end
redis.call('HSET', gateway_key, 'report', int(report))
redis.call('EXPIRE', gateway_key, LIFE)
redis.call('ZADD', P .. 'presence:gateways', int(NOW), gateway)
local lost = redis.call('HEXISTS', gateway_key, 'whole') == 0

local touched = {}
local at = 6
for _ = 1, came do
  connect(gateway, report, ARGV[at], ARGV[at + 1], ARGV[at + 2])
  touched[ARGV[at]] = true
  at = at + 3
end
while at < #ARGV do
  if disconnect(gateway, ARGV[at], ARGV[at + 1], lost) then touched[ARGV[at]] = true end
  at = at + 2
end
for user in pairs(touched) do settle(user) end
return report == last + 1 and 1 or 2
