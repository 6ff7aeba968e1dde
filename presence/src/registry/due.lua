-- Decides the steps down whose hysteresis is over. ARGV: 3 after how long a break what is due may be decided again, in
-- ms, 4 how many at most. Returns how many.

if not steady(tonumber(ARGV[3])) then return 0 end
local users = redis.call('ZRANGE', P .. 'presence:due', '-inf', int(NOW), 'BYSCORE', 'LIMIT', 0, ARGV[4])
for _, user in ipairs(users) do settle(user) end
return #users
