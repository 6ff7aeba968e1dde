-- The commands whose uuid names a time that is far later than their own stored time. A later copy of such a command may
-- look new, so gateways know the users who have one. Most users have none.
CREATE TABLE ahead (
    partition smallint NOT NULL,
    seq       bigint   NOT NULL,
    user_id   bigint   NOT NULL,
    -- The time in the uuid.
    until_ts  bigint   NOT NULL,
    PRIMARY KEY (partition, seq)
);
CREATE INDEX ahead_until ON ahead (until_ts, user_id);

-- Those that are stored already: a uuid of version 7 begins with its time, 48 bits of milliseconds.
INSERT INTO ahead (partition, seq, user_id, until_ts)
SELECT partition, seq, actor, made_ts
FROM (
    SELECT partition, seq, actor, ts, ('x' || left(replace(uuid::text, '-', ''), 12))::bit(48)::bigint AS made_ts
    FROM (
        SELECT partition, seq, actor, ts, uuid FROM events
        UNION ALL
        SELECT partition, seq, actor, ts, uuid FROM refused
    ) commands
    WHERE substr(uuid::text, 15, 1) = '7' AND substr(uuid::text, 20, 1) IN ('8', '9', 'a', 'b')
) made
WHERE made_ts > ts + 55000;
