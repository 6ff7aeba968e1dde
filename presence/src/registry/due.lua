-- Decides the steps down whose hysteresis is over. ARGV: 3 how many at most. Returns how many.

local users = redis.call('ZRANGE', P .. 'presence:due', '-inf', int(NOW), 'BYSCORE', 'LIMIT', 0, ARGV[3])
for _, user in ipairs(users) do settle(user) end
return #users
