-- When the last access token of a family ends: until then a revocation of the family must be remembered. Null for
-- families that a gateway from before this column made.
ALTER TABLE token_families ADD access_until_ts bigint;
-- A day is the longest that a setting lets an access token live.
UPDATE token_families SET access_until_ts = last_seen_ts + 86400000;
