-- Takes off sessions of a gateway that has been silent. ARGV: 3 for how long, in ms, 4 how many at most. Returns
-- how many went, one more for the gateway itself; 0: no gateway is silent.

if not steady(tonumber(ARGV[3])) then return 0 end
local silent = redis.call(
  'ZRANGE', P .. 'presence:gateways', '-inf', '(' .. int(NOW - tonumber(ARGV[3])), 'BYSCORE', 'LIMIT', 0, 1)
local gateway = silent[1]
if not gateway then return 0 end
local key = P .. 'presence:sessions:' .. gateway
local popped = redis.call('ZPOPMIN', key, ARGV[4])
local touched = {}
local count = 0
for at = 1, #popped, 2 do
  local user, session = member(popped[at])
  disconnect(gateway, user, session, false)
  touched[user] = true
  count = count + 1
end
for user in pairs(touched) do settle(user) end
if redis.call('EXISTS', key) == 0 then
  redis.call('ZREM', P .. 'presence:gateways', gateway)
  redis.call('DEL', P .. 'presence:gateway:' .. gateway, P .. 'presence:parts:' .. gateway)
  count = count + 1
end
return count
