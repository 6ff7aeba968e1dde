-- Who may add the user to groups: 'everyone', 'contacts' or 'nobody'.
ALTER TABLE users ADD COLUMN group_invites text NOT NULL DEFAULT 'everyone'
    CHECK (group_invites IN ('everyone', 'contacts', 'nobody'));
