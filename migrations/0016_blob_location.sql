-- Which repositories were seen to hold a blob, so that a copy to another repository of the same registry
-- mounts it. Written by every copy, true at `seen_at`, and corrected when it turns out otherwise.

CREATE TABLE blob_location (
    registry   text NOT NULL,
    digest     text NOT NULL,
    repository text NOT NULL,
    seen_at    timestamptz NOT NULL,
    PRIMARY KEY (registry, digest, repository)
);

CREATE INDEX blob_location_by_age ON blob_location (seen_at);
