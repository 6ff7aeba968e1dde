DROP TABLE memberships, chats, dead_letters, refused, reactions, revisions, events, epochs, checkpoints;
