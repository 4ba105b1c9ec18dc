-- Guards of single tags, put-back, rollback.

ALTER TABLE release
    DROP CONSTRAINT release_phase_check,
    ADD CONSTRAINT release_phase_check
        CHECK (phase IN ('copy', 'unique', 'floating', 'restore', 'done')),
    ADD COLUMN purpose text NOT NULL DEFAULT 'publish' CHECK (purpose IN ('publish', 'rollback')),
    -- What becomes of moved floating tags when the rest fails.
    ADD COLUMN on_failure text NOT NULL DEFAULT 'restore'
        CHECK (on_failure IN ('restore', 'keep')),
    -- Floating tags may go back behind a newer build.
    ADD COLUMN allow_backward boolean NOT NULL DEFAULT false,
    -- Tags move in spite of a freeze.
    ADD COLUMN break_glass boolean NOT NULL DEFAULT false,
    ADD COLUMN plan text,
    ADD COLUMN version text;

ALTER TABLE tag_move
    DROP CONSTRAINT tag_move_state_check,
    ADD CONSTRAINT tag_move_state_check
        CHECK (state IN ('PENDING', 'MOVING', 'MOVED', 'UNCHANGED', 'SUPERSEDED', 'REFUSED',
                         'FAILED', 'UNKNOWN', 'NOT_ATTEMPTED', 'KEPT', 'RESTORING', 'RESTORED')),
    -- The two checks over several columns: when it ended, and why it did not move.
    DROP CONSTRAINT tag_move_check1,
    DROP CONSTRAINT tag_move_check2,
    ADD CONSTRAINT tag_move_ended
        CHECK ((ended_at IS NULL) = (state IN ('PENDING', 'MOVING', 'UNKNOWN', 'RESTORING'))),
    ADD CONSTRAINT tag_move_reason
        CHECK (state NOT IN ('SUPERSEDED', 'REFUSED', 'FAILED', 'NOT_ATTEMPTED', 'KEPT', 'RESTORED')
               OR reason_code IS NOT NULL),
    -- What the tag goes to, where that is not the release's source.
    ADD COLUMN content_registry text,
    ADD COLUMN content_repository text,
    ADD COLUMN content_digest text,
    -- Where the tag must be for it to be moved: a digest, or 'none'.
    ADD COLUMN expected text,
    -- What orders the builds of the tag in place of the ticket.
    ADD COLUMN order_kind text CHECK (order_kind IN ('number', 'time', 'semver')),
    ADD COLUMN order_value text,
    ADD COLUMN if_older text NOT NULL DEFAULT 'refuse'
        CHECK (if_older IN ('refuse', 'supersede', 'keep')),
    -- The versions of which it must be the highest: '' for all, '1', '1.4'; for tags that follow
    -- from a version.
    ADD COLUMN line text,
    -- What held the tag before it was moved, to be put back with it.
    ADD COLUMN before_ticket bigint,
    ADD COLUMN before_order_kind text,
    ADD COLUMN before_order_value text,
    ADD COLUMN before_mover uuid,
    -- The tag was where it should be and was not moved; it was the release's all the same.
    ADD COLUMN found boolean NOT NULL DEFAULT false,
    ADD CONSTRAINT tag_move_content CHECK (
        (content_digest IS NULL) = (content_registry IS NULL)
        AND (content_digest IS NULL) = (content_repository IS NULL)),
    ADD CONSTRAINT tag_move_order CHECK ((order_kind IS NULL) = (order_value IS NULL));

ALTER TABLE tag_head
    -- The greatest order key that moved the tag, unless a decision went back behind it.
    ADD COLUMN order_kind text CHECK (order_kind IN ('number', 'time', 'semver')),
    ADD COLUMN order_value text,
    -- The tag of the release that moved it last, or found it where it wanted it.
    ADD COLUMN mover uuid,
    -- The last rollback that was accepted, and its ticket: whatever is older comes too late.
    ADD COLUMN barrier_ticket bigint,
    ADD COLUMN barrier_release uuid,
    ADD CONSTRAINT tag_head_order CHECK ((order_kind IS NULL) = (order_value IS NULL));

ALTER TABLE open_intent
    ADD COLUMN purpose text NOT NULL DEFAULT 'publish'
        CHECK (purpose IN ('publish', 'rollback', 'restore', 'retention'));

-- What was accepted before was not promised to be put back, and nobody wrote down what it replaced.
UPDATE release SET on_failure = 'keep' WHERE ended_at IS NULL;

-- Whether a job of a kind should do nothing more for its release: it was cancelled, it is failing,
-- or one of its tags was refused or failed, and what is not moved need not be put back.
CREATE FUNCTION release_stops(r release, kind text) RETURNS boolean
    LANGUAGE sql STABLE
    AS $$
    SELECT release_stops.kind <> 'restore'
       AND (r.cancel_requested_at IS NOT NULL OR r.failing_reason IS NOT NULL
            OR release_stops.kind = 'floating' AND r.on_failure = 'restore'
               AND EXISTS (SELECT FROM tag_move m WHERE m.release_id = r.id
                             AND m.state IN ('REFUSED', 'FAILED')))
$$;

ALTER TABLE job
    DROP CONSTRAINT job_kind_check,
    ADD CONSTRAINT job_kind_check CHECK (kind IN ('copy', 'unique', 'floating', 'restore')),
    -- The documented reason for which the job waits, if one applies.
    ADD COLUMN waiting_reason text;

-- Releases that have not ended; all others only grow in number.
CREATE INDEX release_open ON release (id) WHERE ended_at IS NULL;

-- Who was before whom on a tag.
CREATE INDEX tag_move_by_before ON tag_move (before_mover) WHERE before_mover IS NOT NULL;

-- Where a digest was seen: content that is gone from one place is copied back from another.
CREATE INDEX audit_entry_by_digest ON audit_entry (new_digest) WHERE new_digest IS NOT NULL;
