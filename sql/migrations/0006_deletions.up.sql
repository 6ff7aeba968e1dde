-- A chat's last deletions, which are part of the state by which its next event is judged. Few events are deletions.
CREATE INDEX events_deletions ON events (chat_id, seq) INCLUDE (target) WHERE kind = 4;
