-- Takes users to announce, for a while: an instance that has not called done.lua by then leaves them to others. ARGV: 3
-- how many at most, 4 for how long, in ms. Returns user, text of each.

local users = redis.call('ZRANGE', P .. 'presence:news', '-inf', int(NOW), 'BYSCORE', 'LIMIT', 0, ARGV[3])
local claimed = {}
for _, user in ipairs(users) do
  local text = redis.call('HGET', P .. 'presence:text', user)
  if text then
    redis.call('ZADD', P .. 'presence:news', int(NOW + tonumber(ARGV[4])), user)
    table.insert(claimed, user)
    table.insert(claimed, text)
  else
    redis.call('ZREM', P .. 'presence:news', user)
  end
end
return claimed
