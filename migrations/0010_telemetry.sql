-- The trace that a release was accepted in, for the jobs of other processes to go on with it:
-- a `traceparent` of W3C Trace Context, 55 characters; NULL where nothing is traced.

ALTER TABLE release
    ADD COLUMN traceparent text CHECK (length(traceparent) = 55);

-- The gauges count releases at work, and these are few among all that ever were.
CREATE INDEX release_active ON release (state) WHERE ended_at IS NULL;
