-- Both directions of "who has a direct chat with this user": the primary key only finds the lower of two ids.
CREATE INDEX direct_pairs_hi ON direct_pairs (hi, lo);
