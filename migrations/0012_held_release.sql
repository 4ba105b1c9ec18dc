-- Releases from before the hold that is in force, which have not ended: after a restore they may have
-- been overtaken by what the database has forgotten.

CREATE VIEW held_release AS
SELECT r.id, r.phase, r.on_failure, r.cancel_requested_at, r.digest
FROM release r JOIN hold h ON h.ended_at IS NULL
WHERE r.ended_at IS NULL AND r.created_at < h.began_at;
