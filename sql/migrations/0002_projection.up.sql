-- What the projector folds from the log. All of it can be dropped and rebuilt.

CREATE TABLE checkpoints (
    partition  smallint PRIMARY KEY,
    epoch      integer  NOT NULL,
    seq        bigint   NOT NULL,
    -- The identity of the event at `seq`.
    id         bigint   NOT NULL,
    updated_ts bigint   NOT NULL
-- One row a partition, updated with every batch: it stays on its page.
) WITH (fillfactor = 10);
INSERT INTO checkpoints VALUES (0, 0, 0, 0, 0);

-- How often a partition lost its tail, and what was left. Epoch 0 has no row.
CREATE TABLE epochs (
    partition smallint NOT NULL,
    epoch     integer  NOT NULL,
    cut_seq   bigint   NOT NULL,
    cut_id    bigint   NOT NULL,
    found_ts  bigint   NOT NULL,
    PRIMARY KEY (partition, epoch)
);

-- Every valid event of every chat, complete enough to replay it.
CREATE TABLE events (
    chat_id     bigint   NOT NULL,
    seq         bigint   NOT NULL,
    -- The chat's valid event before this one; 0 for the first.
    prev        bigint   NOT NULL,
    -- The chat's last message up to and including this event; 0: none yet.
    message_seq bigint   NOT NULL,
    id          bigint   NOT NULL,
    ts          bigint   NOT NULL,
    actor       bigint   NOT NULL,
    -- The chat's messages up to and including this event.
    n           integer  NOT NULL,
    kind        smallint NOT NULL,
    partition   smallint NOT NULL,
    uuid        uuid     NOT NULL,
    -- The message that an edit, a deletion or a reaction concerns.
    target      bigint,
    payload     bytea    NOT NULL,
    PRIMARY KEY (chat_id, seq)
);
CREATE UNIQUE INDEX events_command ON events (chat_id, actor, uuid);
-- Rows lie in the order of the log, so that a few bytes per range find a sequence: for cuts and identity checks.
CREATE INDEX events_seq ON events USING brin (seq) WITH (pages_per_range = 32, autosummarize = on);

-- What became of a message after it was sent; only edited and deleted ones have a row.
CREATE TABLE revisions (
    chat_id    bigint NOT NULL,
    seq        bigint NOT NULL,
    edited_ts  bigint,
    deleted_ts bigint,
    -- The event of the last edit; null once the message is deleted.
    payload    bytea,
    PRIMARY KEY (chat_id, seq)
);

CREATE TABLE reactions (
    chat_id bigint NOT NULL,
    seq     bigint NOT NULL,
    user_id bigint NOT NULL,
    emoji   text   NOT NULL,
    -- The event that set it.
    at_seq  bigint NOT NULL,
    PRIMARY KEY (chat_id, seq, emoji, user_id)
);

-- Void commands, so that a retry gets its refusal again.
CREATE TABLE refused (
    chat_id   bigint   NOT NULL,
    seq       bigint   NOT NULL,
    id        bigint   NOT NULL,
    ts        bigint   NOT NULL,
    actor     bigint   NOT NULL,
    partition smallint NOT NULL,
    uuid      uuid     NOT NULL,
    code      text     NOT NULL,
    payload   bytea    NOT NULL,
    PRIMARY KEY (chat_id, seq)
);
CREATE INDEX refused_command ON refused (chat_id, actor, uuid);
CREATE INDEX refused_seq ON refused (seq);

-- What no decoder can read: void for everyone, kept for the operator.
CREATE TABLE dead_letters (
    partition smallint NOT NULL,
    seq       bigint   NOT NULL,
    id        bigint   NOT NULL,
    ts        bigint   NOT NULL,
    reason    text     NOT NULL,
    payload   bytea    NOT NULL,
    PRIMARY KEY (partition, seq)
);

CREATE TABLE chats (
    id           bigint   PRIMARY KEY,
    created_seq  bigint   NOT NULL,
    created_ts   bigint   NOT NULL,
    member_count integer  NOT NULL,
    type         smallint NOT NULL,
    partition    smallint NOT NULL,
    history      text     NOT NULL,
    title        text
);

-- Who was a member when: closed intervals of sequences, disjoint per user and chat, so that "entitled to the event
-- at s" is "an interval holds s". A removal lies inside the interval that it ends. Nothing is overwritten but the
-- end of the open interval and `own_seq`.
CREATE TABLE memberships (
    chat_id    bigint   NOT NULL,
    user_id    bigint   NOT NULL,
    from_seq   bigint   NOT NULL,
    -- Null while it lasts.
    to_seq     bigint,
    -- The event and the time by which the user became a member; later role changes keep them.
    joined_seq bigint   NOT NULL,
    joined_ts  bigint   NOT NULL,
    -- Everything up to here is the member's own or from before they joined: the least `readSeq`.
    own_seq    bigint   NOT NULL,
    -- 0 member, 1 admin, 2 owner.
    role       smallint NOT NULL,
    -- Ended by leaving, and not by a change of the role.
    gone       boolean  NOT NULL DEFAULT false,
    PRIMARY KEY (chat_id, user_id, from_seq)
-- Sending moves `own_seq`, which no index holds: with room on the page it costs no index entry.
) WITH (fillfactor = 70);
CREATE INDEX memberships_user ON memberships (user_id, chat_id);
