-- Times in which no tag of the repositories that a pattern covers is moved.

CREATE TABLE tag_freeze (
    id          uuid PRIMARY KEY,
    -- '*', a prefix that ends in '/*', or one repository, the registry's host in front.
    pattern     text NOT NULL,
    reason      text NOT NULL CHECK (reason <> ''),
    principal   text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT colophon_now(),
    ends_at     timestamptz NOT NULL,
    lifted_at   timestamptz,
    lifted_by   text,
    lift_reason text NOT NULL DEFAULT '',
    CHECK ((lifted_at IS NULL) = (lifted_by IS NULL))
);

CREATE INDEX tag_freeze_in_force ON tag_freeze (ends_at) WHERE lifted_at IS NULL;

-- The freeze that stops moves in a repository now; of several the one that ends last.
CREATE FUNCTION freeze_of(registry text, repository text) RETURNS SETOF tag_freeze
    LANGUAGE sql STABLE
    AS $$
    SELECT f.* FROM tag_freeze f
    WHERE f.lifted_at IS NULL AND f.ends_at > colophon_now()
      AND CASE WHEN right(f.pattern, 1) = '*'
               THEN starts_with(freeze_of.registry || '/' || freeze_of.repository,
                                left(f.pattern, -1))
               ELSE f.pattern = freeze_of.registry || '/' || freeze_of.repository END
    ORDER BY f.ends_at DESC, f.id LIMIT 1
$$;
