-- Content that comes from clients straight into a repository, before a release of it is accepted.
CREATE TABLE upload (
    id             uuid PRIMARY KEY,
    -- Whose it is: nobody else gets at it.
    principal      text NOT NULL,
    registry       text NOT NULL,
    repository     text NOT NULL,
    -- Where the content comes from, as claimed.
    origin         text NOT NULL DEFAULT '',
    created_at     timestamptz NOT NULL DEFAULT colophon_now(),
    -- When it ends if nothing more comes.
    expires_at     timestamptz NOT NULL,
    -- Bytes that the registry has confirmed, and blobs that are complete.
    bytes_received bigint NOT NULL DEFAULT 0 CHECK (bytes_received >= 0),
    blobs          integer NOT NULL DEFAULT 0 CHECK (blobs >= 0),
    CHECK (expires_at >= created_at)
);

CREATE INDEX upload_by_principal ON upload (principal);
CREATE INDEX upload_by_end ON upload (expires_at);

-- Blobs that clients send, until they are complete; and how far one is that broke off, so that it is
-- gone on with whoever comes, in whatever process. No row means that nobody sends the blob.
CREATE TABLE upload_blob (
    registry         text NOT NULL,
    repository       text NOT NULL,
    digest           text NOT NULL,
    -- The upload that has sent it last. What has none any more is cancelled at the registry.
    upload_id        uuid REFERENCES upload ON DELETE SET NULL,
    -- Who sends it at the moment, or cancels it.
    lease_token      uuid,
    lease_expires_at timestamptz,
    size             bigint NOT NULL CHECK (size >= 0),
    -- How many have begun to send it since it last came further. After the first one it may be there.
    boarded          integer NOT NULL DEFAULT 1,
    -- The registry takes it in one request only.
    whole            boolean NOT NULL DEFAULT false,
    -- Where the registry takes the rest. Encrypted with a key from the credential that it was begun
    -- with, since such a URL may hold a secret of its own.
    location         bytea,
    -- Bytes from the blob's start that the registry has confirmed, and the digest's state over them.
    sent_bytes       bigint CHECK (sent_bytes > 0),
    hash_state       bytea,
    updated_at       timestamptz NOT NULL DEFAULT colophon_now(),
    PRIMARY KEY (registry, repository, digest),
    CHECK ((lease_token IS NULL) = (lease_expires_at IS NULL)),
    CHECK ((location IS NULL) = (sent_bytes IS NULL) AND (location IS NULL) = (hash_state IS NULL))
);

CREATE INDEX upload_blob_by_upload ON upload_blob (upload_id);

-- Where the content of a release came from, if a client sent it; as claimed.
ALTER TABLE release ADD COLUMN origin text NOT NULL DEFAULT '';
