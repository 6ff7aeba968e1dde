-- Takes off the sessions that a whole snapshot did not confirm. ARGV: 3 gateway, 4 the snapshot's report, 5 how many
-- at most. Returns how many went.

local gateway = ARGV[3]
local stale = redis.call(
  'ZRANGE', P .. 'presence:sessions:' .. gateway, '-inf', '(' .. ARGV[4], 'BYSCORE', 'LIMIT', 0, ARGV[5])
local touched = {}
for _, text in ipairs(stale) do
  local user, session = member(text)
  disconnect(gateway, user, session, false)
  touched[user] = true
end
for user in pairs(touched) do settle(user) end
return #stale
