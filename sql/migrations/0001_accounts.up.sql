-- Accounts, devices and the claims that chats are created under. Ordinary tables: not rebuilt from the log.

CREATE SEQUENCE user_ids MAXVALUE 9007199254740991;
CREATE SEQUENCE chat_ids MAXVALUE 9007199254740991;

CREATE TABLE users (
    id            bigint PRIMARY KEY DEFAULT nextval('user_ids'),
    -- Lower-cased by whoever writes it.
    email         text   NOT NULL,
    display_name  text   NOT NULL,
    -- Null: nobody can log in with a password (accounts made by an operator).
    password_hash text,
    created_ts    bigint NOT NULL
);
CREATE UNIQUE INDEX users_email ON users (email);

-- One row per device that logged in; `did` is in its access tokens.
CREATE TABLE token_families (
    did          uuid   PRIMARY KEY,
    user_id      bigint NOT NULL REFERENCES users,
    device       text   NOT NULL,
    created_ts   bigint NOT NULL,
    last_seen_ts bigint NOT NULL,
    expires_ts   bigint NOT NULL,
    revoked_ts   bigint
);
CREATE INDEX token_families_user ON token_families (user_id);
CREATE INDEX token_families_revoked ON token_families (revoked_ts) WHERE revoked_ts IS NOT NULL;

-- Only hashes: a stolen copy of this table logs nobody in.
CREATE TABLE refresh_tokens (
    hash       bytea  PRIMARY KEY,
    did        uuid   NOT NULL REFERENCES token_families,
    issued_ts  bigint NOT NULL,
    expires_ts bigint NOT NULL,
    used_ts    bigint
);
CREATE INDEX refresh_tokens_did ON refresh_tokens (did);

-- The one direct chat of two users. The chat itself is created in the log by whoever finds the claim without it.
CREATE TABLE direct_pairs (
    lo      bigint NOT NULL,
    hi      bigint NOT NULL CHECK (lo < hi),
    chat_id bigint NOT NULL,
    PRIMARY KEY (lo, hi)
);

-- The group that a user created under an idempotency key.
CREATE TABLE group_keys (
    user_id bigint NOT NULL,
    key     uuid   NOT NULL,
    chat_id bigint NOT NULL,
    PRIMARY KEY (user_id, key)
);

-- How far a member has read and received. Owned by presence.
CREATE TABLE read_marks (
    chat_id       bigint NOT NULL,
    user_id       bigint NOT NULL,
    read_seq      bigint NOT NULL DEFAULT 0,
    delivered_seq bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (chat_id, user_id)
-- Half of each page is room for the next versions of its rows: marks move all the time, and no index holds them.
) WITH (fillfactor = 50);
