-- Whether the reactions are those of canonical emoji. Earlier builds stored each emoji as it was typed, and so counted one
-- heart as two. The projector folds them again once; a projection without events has nothing to fold.
ALTER TABLE checkpoints ADD COLUMN emoji_canonical boolean NOT NULL DEFAULT true;
UPDATE checkpoints SET emoji_canonical = false WHERE seq > 0;
