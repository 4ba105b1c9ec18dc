-- The one place from which SQL reads the time, so that tests can replace it and hold the clock.
CREATE FUNCTION colophon_now() RETURNS timestamptz
    LANGUAGE sql STABLE
    AS $$ SELECT clock_timestamp() $$;
