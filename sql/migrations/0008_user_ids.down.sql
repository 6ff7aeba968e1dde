ALTER TABLE users ALTER id SET DEFAULT nextval('user_ids');
DROP FUNCTION new_user_id();
