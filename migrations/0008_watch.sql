-- What those who watch a release see: how far its copies are, and a number that grows with every
-- change, so that who was disconnected knows whether anything was missed.

ALTER TABLE publication
    -- Blobs of the copy: those on their way and the largest others, 32 at most.
    ADD COLUMN blobs jsonb NOT NULL DEFAULT '[]',
    -- All of them.
    ADD COLUMN blobs_total bigint NOT NULL DEFAULT 0,
    ADD COLUMN revision bigint NOT NULL DEFAULT 1;
ALTER TABLE release ADD COLUMN revision bigint NOT NULL DEFAULT 1;
ALTER TABLE tag_move ADD COLUMN revision bigint NOT NULL DEFAULT 1;
ALTER TABLE job ADD COLUMN revision bigint NOT NULL DEFAULT 1;

-- Every row counts its own changes. One number for the whole release would be one row that all its
-- jobs wait for, and two that settle tags would wait for each other.
CREATE FUNCTION count_revision() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    NEW.revision := OLD.revision + 1;
    RETURN NEW;
END
$$;

CREATE TRIGGER release_revision BEFORE UPDATE ON release
    FOR EACH ROW EXECUTE FUNCTION count_revision();
CREATE TRIGGER publication_revision BEFORE UPDATE ON publication
    FOR EACH ROW EXECUTE FUNCTION count_revision();
CREATE TRIGGER tag_move_revision BEFORE UPDATE ON tag_move
    FOR EACH ROW EXECUTE FUNCTION count_revision();
-- Renewing a lease is no change that anybody sees.
CREATE TRIGGER job_revision BEFORE UPDATE ON job
    FOR EACH ROW
    WHEN ((OLD.waiting_for, OLD.waiting_reason, OLD.failures, OLD.ended_at)
          IS DISTINCT FROM (NEW.waiting_for, NEW.waiting_reason, NEW.failures, NEW.ended_at))
    EXECUTE FUNCTION count_revision();

-- The revision of a release: the changes of all its rows.
CREATE FUNCTION release_revision(r release) RETURNS bigint
    LANGUAGE sql STABLE
    AS $$
    SELECT (r.revision
            + (SELECT COALESCE(sum(p.revision), 0) FROM publication p WHERE p.release_id = r.id)
            + (SELECT COALESCE(sum(m.revision), 0) FROM tag_move m WHERE m.release_id = r.id)
            + (SELECT COALESCE(sum(j.revision), 0) FROM job j WHERE j.release_id = r.id))::bigint
$$;
