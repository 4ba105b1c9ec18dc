-- A limit that was learnt from refusals is a guess until it was refused while it was kept.
ALTER TABLE registry_budget ADD COLUMN refused_proven boolean NOT NULL DEFAULT false;

-- A layer of a base image may be in every repository there is: only the newest places are looked at.
CREATE INDEX blob_location_newest ON blob_location (registry, digest, seen_at DESC);
