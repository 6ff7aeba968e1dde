-- Ids of accounts are random, so that nobody finds accounts by counting: 53 bits of the random part of a uuid.
CREATE FUNCTION new_user_id() RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT greatest(1, ('x' || right(replace(gen_random_uuid()::text, '-', ''), 14))::bit(56)::bigint >> 3)
$$;
-- The sequence `user_ids` stays for projectors of earlier builds, which look at it.
ALTER TABLE users ALTER id SET DEFAULT new_user_id();
