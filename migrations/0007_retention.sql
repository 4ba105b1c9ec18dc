-- Digests that floating tags have left and that are kept under a tag of their own.

ALTER TABLE tag_move
    -- The tag keeps a digest that a floating tag of the release leaves.
    ADD COLUMN retention boolean NOT NULL DEFAULT false;

ALTER TABLE open_intent
    -- NULL: the tag is to be deleted, which only retention does.
    ALTER COLUMN new_digest DROP NOT NULL,
    ADD CONSTRAINT open_intent_deletes CHECK (new_digest IS NOT NULL OR purpose = 'retention');

CREATE TABLE kept_digest (
    registry    text NOT NULL,
    repository  text NOT NULL,
    -- The floating tag that left the digest, last at `left_at`.
    tag         text NOT NULL,
    digest      text NOT NULL,
    -- The tag that keeps it; several floating tags may share one.
    kept_tag    text NOT NULL,
    tag_move_id uuid NOT NULL REFERENCES tag_move,
    left_at     timestamptz NOT NULL,
    -- When a prune that could not delete the tag is tried again.
    retry_at    timestamptz,
    PRIMARY KEY (registry, repository, tag, digest)
);

-- Tags that somebody else has, and that releases were published from.
CREATE INDEX release_by_source ON release (source_registry, source_repository, digest);

CREATE INDEX kept_digest_by_kept_tag ON kept_digest (registry, repository, kept_tag);
