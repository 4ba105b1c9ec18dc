-- The queue. A job is enqueued in the transaction that makes it necessary, is claimed under a
-- lease, and every write of the worker is fenced by the lease's token.

CREATE TABLE job (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    release_id       uuid NOT NULL REFERENCES release,
    publication_id   uuid NOT NULL REFERENCES publication,
    kind             text NOT NULL CHECK (kind IN ('copy', 'unique', 'floating')),
    state            text NOT NULL DEFAULT 'queued'
        CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled')),
    priority         smallint NOT NULL,
    run_at           timestamptz NOT NULL DEFAULT colophon_now(),
    -- Attempts that did not work; waiting is not one.
    failures         integer NOT NULL DEFAULT 0,
    lease_token      uuid,
    lease_expires_at timestamptz,
    worker           text,
    -- What the job waits for, in words, and the reference that blocks it, if one does.
    waiting_for      text,
    blocked_on       text,
    created_at       timestamptz NOT NULL DEFAULT colophon_now(),
    claimed_at       timestamptz,
    ended_at         timestamptz,
    UNIQUE (publication_id, kind),
    CHECK ((state = 'running') = (lease_token IS NOT NULL AND lease_expires_at IS NOT NULL))
);

-- A job that has waited goes behind those that have not: `run_at` before `id`.
CREATE INDEX job_claimable ON job (priority DESC, run_at, id) WHERE state = 'queued';
CREATE INDEX job_due ON job (run_at) WHERE state = 'queued';
CREATE INDEX job_leased ON job (lease_expires_at) WHERE state = 'running';
CREATE INDEX job_blocked ON job (blocked_on) WHERE blocked_on IS NOT NULL AND state = 'queued';
CREATE INDEX job_by_release ON job (release_id);

-- What was tried and did not work.
CREATE TABLE attempt (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id      bigint NOT NULL REFERENCES job,
    number      integer NOT NULL,
    worker      text NOT NULL,
    reason_code text NOT NULL,
    message     text NOT NULL,
    started_at  timestamptz NOT NULL,
    ended_at    timestamptz NOT NULL DEFAULT colophon_now()
);

CREATE INDEX attempt_by_job ON attempt (job_id, id DESC);
