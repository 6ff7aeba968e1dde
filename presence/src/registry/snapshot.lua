-- A part of a gateway's snapshot. ARGV: 3 gateway, 4 the report that it includes, 5 part, 6 parts, then user, session,
-- value of each session. Returns 0: known already or overtaken by a report, 1: applied, 2: now it is whole.

local gateway, report, part, parts = ARGV[3], tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local gateway_key = P .. 'presence:gateway:' .. gateway
local parts_key = P .. 'presence:parts:' .. gateway
local last = tonumber(redis.call('HGET', gateway_key, 'report') or -1)
local begun = tonumber(redis.call('HGET', gateway_key, 'begun') or -1)
if report < last or report < begun then return 0 end
if report > begun then
  redis.call('HSET', gateway_key, 'begun', int(report))
  redis.call('DEL', parts_key)
end
if redis.call('SADD', parts_key, part) == 0 then return 0 end
redis.call('EXPIRE', parts_key, 60)
redis.call('HSET', gateway_key, 'report', int(report))
redis.call('EXPIRE', gateway_key, LIFE)
redis.call('ZADD', P .. 'presence:gateways', int(NOW), gateway)

local touched = {}
for at = 7, #ARGV, 3 do
  connect(gateway, report, ARGV[at], ARGV[at + 1], ARGV[at + 2])
  touched[ARGV[at]] = true
end
for user in pairs(touched) do settle(user) end
redis.call('EXPIRE', P .. 'presence:sessions:' .. gateway, LIFE)
if redis.call('SCARD', parts_key) < parts then return 1 end
redis.call('HSET', gateway_key, 'whole', int(report))
return 2
