DROP TABLE read_marks, group_keys, direct_pairs, refresh_tokens, token_families, users;
DROP SEQUENCE chat_ids, user_ids;
