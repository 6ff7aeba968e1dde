ALTER TABLE checkpoints DROP COLUMN emoji_canonical;
