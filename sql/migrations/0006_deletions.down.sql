DROP INDEX events_deletions;
