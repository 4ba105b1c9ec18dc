-- What all processes know of how often a registry may be asked, and from when on the next request may
-- be sent.

CREATE TABLE registry_budget (
    registry           text PRIMARY KEY,
    -- Grows with every pause and every limit.
    version            bigint NOT NULL DEFAULT 0,
    next_at            timestamptz NOT NULL DEFAULT colophon_now(),
    paused_until       timestamptz,
    -- Refusals without a time since the last success.
    strikes            integer NOT NULL DEFAULT 0 CHECK (strikes >= 0),
    -- The limit that was learnt from refusals, what they do not lower it below, and when.
    refused_per_second double precision CHECK (refused_per_second > 0),
    refused_least      double precision CHECK (refused_least > 0),
    refused_at         timestamptz,
    -- The limit that the registry has told, and when.
    told_per_second    double precision CHECK (told_per_second > 0),
    told_at            timestamptz,
    updated_at         timestamptz NOT NULL DEFAULT colophon_now(),
    CHECK ((refused_per_second IS NULL) = (refused_at IS NULL)),
    CHECK ((refused_per_second IS NULL) = (refused_least IS NULL)),
    CHECK ((told_per_second IS NULL) = (told_at IS NULL))
-- A row is updated with nearly every request where a limit is known.
) WITH (fillfactor = 50);
