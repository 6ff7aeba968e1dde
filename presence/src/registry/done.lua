-- Forgets what was announced, unless there is newer news of the user. ARGV: from 3 on user, text of each.

for at = 3, #ARGV, 2 do
  if redis.call('HGET', P .. 'presence:text', ARGV[at]) == ARGV[at + 1] then
    redis.call('HDEL', P .. 'presence:text', ARGV[at])
    redis.call('ZREM', P .. 'presence:news', ARGV[at])
  end
end
return 0
