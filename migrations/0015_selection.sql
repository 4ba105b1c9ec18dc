-- What of an image goes along with it, and tags that belong to what was copied.

ALTER TABLE release
    -- Only these platforms of an index; all if there are none.
    ADD COLUMN platforms text[] NOT NULL DEFAULT '{}',
    -- 'all', 'none', or artifact types.
    ADD COLUMN referrers text[] NOT NULL DEFAULT '{all}' CHECK (cardinality(referrers) > 0),
    ADD COLUMN cosign boolean NOT NULL DEFAULT true,
    ADD COLUMN include_foreign boolean NOT NULL DEFAULT false,
    -- The digest that the source had, where `digest` is that of an index which was made of it; and the
    -- bytes of that index, which is nowhere else until it is copied.
    ADD COLUMN source_digest text,
    ADD COLUMN made_manifest bytea CHECK (octet_length(made_manifest) <= 4194304),
    ADD COLUMN made_media_type text,
    ADD CONSTRAINT release_made CHECK (
        (source_digest IS NULL) = (made_manifest IS NULL)
        AND (source_digest IS NULL) = (made_media_type IS NULL));

ALTER TABLE tag_move
    -- The tag belongs to what was copied. It is none that was asked for, like one of retention, and
    -- older processes take it for one: they leave it alone.
    ADD COLUMN companion boolean NOT NULL DEFAULT false,
    ADD CONSTRAINT tag_move_companion CHECK (retention OR NOT companion);
