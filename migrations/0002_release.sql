-- What was asked, and where it stands.

CREATE TABLE release (
    id                uuid PRIMARY KEY,
    principal         text NOT NULL,
    on_behalf_of      text NOT NULL DEFAULT '',
    reason            text NOT NULL DEFAULT '',
    labels            jsonb NOT NULL DEFAULT '{}',
    source_registry   text NOT NULL,
    source_repository text NOT NULL,
    -- The tag or digest as it was given; `digest` is what it was resolved to, once.
    source_reference  text NOT NULL,
    digest            text NOT NULL,
    not_after         timestamptz,
    priority          smallint NOT NULL DEFAULT 0 CHECK (priority BETWEEN -100 AND 100),
    state             text NOT NULL DEFAULT 'QUEUED'
        CHECK (state IN ('QUEUED', 'RUNNING', 'SUCCEEDED', 'FAILED', 'ERRORED', 'CANCELLED')),
    state_reason      text,
    message           text NOT NULL DEFAULT '',
    phase             text NOT NULL CHECK (phase IN ('copy', 'unique', 'floating', 'done')),
    -- Every unique tag of every target was looked at before anything was copied.
    checked           boolean NOT NULL DEFAULT false,
    -- Why the release will fail; its running jobs stop as soon as they see it.
    failing_reason    text,
    cancel_requested_at timestamptz,
    cancelled_by      text,
    cancel_reason     text NOT NULL DEFAULT '',
    created_at        timestamptz NOT NULL DEFAULT colophon_now(),
    started_at        timestamptz,
    ended_at          timestamptz,
    CHECK ((ended_at IS NULL) = (state IN ('QUEUED', 'RUNNING'))),
    CHECK (state NOT IN ('FAILED', 'ERRORED', 'CANCELLED') OR state_reason IS NOT NULL)
);

CREATE INDEX release_by_principal ON release (principal, id DESC);
CREATE INDEX release_by_label ON release USING gin (labels jsonb_path_ops);

-- One target repository of a release.
CREATE TABLE publication (
    id            uuid PRIMARY KEY,
    release_id    uuid NOT NULL REFERENCES release,
    ordinal       smallint NOT NULL,
    registry      text NOT NULL,
    repository    text NOT NULL,
    state         text NOT NULL
        CHECK (state IN ('QUEUED', 'COPYING', 'COPIED', 'SUCCEEDED', 'FAILED', 'CANCELLED')),
    blobs_copied  bigint NOT NULL DEFAULT 0,
    blobs_present bigint NOT NULL DEFAULT 0,
    blobs_mounted bigint NOT NULL DEFAULT 0,
    bytes_copied  bigint NOT NULL DEFAULT 0,
    bytes_total   bigint NOT NULL DEFAULT 0,
    notes         text[] NOT NULL DEFAULT '{}',
    UNIQUE (release_id, registry, repository)
);

CREATE INDEX publication_by_repository ON publication (registry, repository, release_id DESC);

-- One tag of a release.
CREATE TABLE tag_move (
    id             uuid PRIMARY KEY,
    release_id     uuid NOT NULL REFERENCES release,
    publication_id uuid NOT NULL REFERENCES publication,
    ordinal        smallint NOT NULL,
    kind           text NOT NULL CHECK (kind IN ('unique', 'floating')),
    tag            text NOT NULL,
    -- The order of acceptance among the releases of one floating tag.
    ticket         bigint CHECK ((ticket IS NOT NULL) = (kind = 'floating')),
    state          text NOT NULL DEFAULT 'PENDING'
        CHECK (state IN ('PENDING', 'MOVING', 'MOVED', 'UNCHANGED', 'SUPERSEDED', 'REFUSED',
                         'FAILED', 'UNKNOWN', 'NOT_ATTEMPTED')),
    reason_code    text,
    message        text NOT NULL DEFAULT '',
    old_digest     text,
    new_digest     text,
    ended_at       timestamptz,
    UNIQUE (publication_id, tag),
    CHECK ((ended_at IS NULL) = (state IN ('PENDING', 'MOVING', 'UNKNOWN'))),
    CHECK (state NOT IN ('SUPERSEDED', 'REFUSED', 'FAILED', 'NOT_ATTEMPTED') OR reason_code IS NOT NULL)
);

CREATE INDEX tag_move_by_release ON tag_move (release_id);

-- Makes sending a request again safe: the same key and fingerprint give the same release.
CREATE TABLE idempotency_key (
    principal   text NOT NULL,
    key         text NOT NULL,
    fingerprint bytea NOT NULL,
    release_id  uuid NOT NULL REFERENCES release,
    created_at  timestamptz NOT NULL DEFAULT colophon_now(),
    PRIMARY KEY (principal, key)
);
