-- What is known of a restore outlives the process that finds it out: an operator's command may be
-- broken off and run again.

-- Releases from before the hold that is in force, which have not ended: after a restore they may have
-- been overtaken by what the database has forgotten.
CREATE VIEW held_release AS
SELECT r.id, r.phase, r.on_failure, r.cancel_requested_at, r.digest
FROM release r JOIN hold h ON h.ended_at IS NULL
WHERE r.ended_at IS NULL AND r.created_at < h.began_at;

-- The tag was seen elsewhere than it was recorded, at some time since the hold began: also when that
-- was written into the ledger since, and a later comparison finds nothing to say.
ALTER TABLE restore_finding ADD COLUMN differed boolean NOT NULL DEFAULT false;
UPDATE restore_finding SET differed = true WHERE found = 'differs';
