DROP INDEX direct_pairs_hi;
