ALTER TABLE token_families DROP access_until_ts;
