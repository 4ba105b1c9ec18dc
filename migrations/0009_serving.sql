-- Holding everything after the database was restored, limits of what waits, and letting go of what
-- has ended long ago.

-- The one row about the database itself.
CREATE TABLE instance (
    one     boolean PRIMARY KEY DEFAULT true CHECK (one),
    -- Where the database lived when the service last worked on it; NULL before its first start.
    lineage text
);
INSERT INTO instance DEFAULT VALUES;

-- Where the database lives: the cluster, its timeline, the database in it. A restored dump has
-- another database or cluster; a cluster that was restored to a point in time, and a standby that
-- took over, have another timeline.
CREATE FUNCTION database_lineage() RETURNS text
    LANGUAGE plpgsql STABLE
    AS $$
DECLARE
    place text;
BEGIN
    BEGIN
        SELECT system_identifier || '/' || left(pg_walfile_name(pg_current_wal_lsn()), 8)
        INTO place FROM pg_control_system();
    EXCEPTION WHEN insufficient_privilege THEN
        -- Where this is not shown to us, the database alone has to tell.
        place := 'hidden';
    END;
    RETURN place || '/' || (SELECT oid FROM pg_database WHERE datname = current_database());
END
$$;

-- Times in which nothing is claimed and no move begins, until a person says so.
CREATE TABLE hold (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    cause      text NOT NULL CHECK (cause IN ('restore', 'asked')),
    reason     text NOT NULL CHECK (reason <> ''),
    began_by   text NOT NULL,
    began_at   timestamptz NOT NULL DEFAULT colophon_now(),
    -- Where the database lived when it began.
    lineage    text NOT NULL,
    ended_at   timestamptz,
    ended_by   text,
    end_reason text,
    -- Releases from before it were not cancelled, whatever the registries showed.
    kept_queue boolean,
    CHECK ((ended_at IS NULL) = (ended_by IS NULL)),
    CHECK ((ended_at IS NULL) = (end_reason IS NULL)),
    CHECK ((ended_at IS NULL) = (kept_queue IS NULL))
);
CREATE UNIQUE INDEX hold_in_force ON hold ((ended_at IS NULL)) WHERE ended_at IS NULL;

-- Whether everything is held: somebody said so, or the database lives elsewhere than it did, also
-- before any process has noticed.
CREATE FUNCTION on_hold() RETURNS boolean
    LANGUAGE sql STABLE
    AS $$
    SELECT EXISTS (SELECT FROM hold WHERE ended_at IS NULL)
        OR EXISTS (SELECT FROM instance WHERE lineage <> database_lineage())
$$;

-- The last line: whichever process of whichever version asks.
CREATE FUNCTION refuse_on_hold() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    IF on_hold() THEN
        RAISE EXCEPTION 'the service is on hold: no move begins'
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER open_intent_on_hold BEFORE INSERT ON open_intent
    FOR EACH ROW EXECUTE FUNCTION refuse_on_hold();

-- What the registries showed when they were compared with the ledger after a restore.
CREATE TABLE restore_finding (
    registry   text NOT NULL,
    repository text NOT NULL,
    tag        text NOT NULL,
    found      text NOT NULL CHECK (found IN ('same', 'differs', 'unreachable')),
    recorded   text,
    served     text,
    message    text NOT NULL DEFAULT '',
    -- The number of the tag's entries with which it was compared.
    tag_seq    bigint NOT NULL,
    checked_at timestamptz NOT NULL DEFAULT colophon_now(),
    PRIMARY KEY (registry, repository, tag)
);

-- Releases that wait or run, by caller: how many there are is asked all the time.
CREATE INDEX release_open_by_principal ON release (principal) WHERE ended_at IS NULL;

-- What has ended, oldest first, to be let go of.
CREATE INDEX job_ended ON job (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX idempotency_key_by_age ON idempotency_key (created_at);
