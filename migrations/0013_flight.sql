-- Blobs on their way, so that several jobs that want the same one in the same repository do not each
-- send it, in whatever processes they run; and how far the upload of a large one is, so that another
-- worker goes on where one has died. No row means that nobody brings the blob.
CREATE TABLE blob_flight (
    registry    text NOT NULL,
    repository  text NOT NULL,
    digest      text NOT NULL,
    -- Who brings it. The row counts while that very lease does; after that whoever comes takes it over.
    job_id      bigint NOT NULL REFERENCES job ON DELETE CASCADE,
    lease_token uuid NOT NULL,
    -- How many have tried to bring it. After the first one it may be there.
    boarded     integer NOT NULL DEFAULT 1,
    -- Where the registry takes the rest. Encrypted with a key from the credential that the upload was
    -- begun with, since such a URL may hold a secret of its own.
    location    bytea,
    -- Bytes from the blob's start that the registry has confirmed, and the digest's state over them.
    sent_bytes  bigint CHECK (sent_bytes > 0),
    hash_state  bytea,
    started_at  timestamptz NOT NULL DEFAULT colophon_now(),
    updated_at  timestamptz NOT NULL DEFAULT colophon_now(),
    PRIMARY KEY (registry, repository, digest),
    CHECK ((location IS NULL) = (sent_bytes IS NULL) AND (location IS NULL) = (hash_state IS NULL))
);

CREATE INDEX blob_flight_by_job ON blob_flight (job_id);

-- A job that has ended will not go on with anything, however it ended.
CREATE FUNCTION forget_flights() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    DELETE FROM blob_flight WHERE job_id = NEW.id;
    RETURN NULL;
END
$$;

CREATE TRIGGER job_flights_forgotten AFTER UPDATE OF ended_at ON job
    FOR EACH ROW WHEN (OLD.ended_at IS NULL AND NEW.ended_at IS NOT NULL)
    EXECUTE FUNCTION forget_flights();
