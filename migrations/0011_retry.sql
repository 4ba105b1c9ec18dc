-- Releases that were put to work again: by whom, why, and how they had ended before.

CREATE TABLE release_retry (
    release_id   uuid NOT NULL REFERENCES release ON DELETE CASCADE,
    number       smallint NOT NULL,
    principal    text NOT NULL,
    reason       text NOT NULL DEFAULT '',
    ended_state  text NOT NULL,
    ended_reason text NOT NULL,
    ended_at     timestamptz NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT colophon_now(),
    PRIMARY KEY (release_id, number)
);

-- Jobs of what ended long ago are let go of; their changes stay counted, so that revisions only grow.
CREATE OR REPLACE FUNCTION count_revision() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    NEW.revision := GREATEST(NEW.revision, OLD.revision) + 1;
    RETURN NEW;
END
$$;

CREATE FUNCTION keep_revision() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    UPDATE release SET revision = revision + OLD.revision WHERE id = OLD.release_id;
    RETURN NULL;
END
$$;

CREATE TRIGGER job_revision_kept AFTER DELETE ON job
    FOR EACH ROW EXECUTE FUNCTION keep_revision();

-- A hold is seen at every release, too.
CREATE OR REPLACE FUNCTION release_revision(r release) RETURNS bigint
    LANGUAGE sql STABLE
    AS $$
    SELECT (r.revision
            + (SELECT COALESCE(sum(p.revision), 0) FROM publication p WHERE p.release_id = r.id)
            + (SELECT COALESCE(sum(m.revision), 0) FROM tag_move m WHERE m.release_id = r.id)
            + (SELECT COALESCE(sum(j.revision), 0) FROM job j WHERE j.release_id = r.id)
            + (SELECT count(*) + count(ended_at) FROM hold))::bigint
$$;
