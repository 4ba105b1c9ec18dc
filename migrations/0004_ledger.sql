-- The ledger: which digest each tag pointed to. Entries are written once and never change.

-- The newest state of a reference, and the row whose lock orders everything about it.
CREATE TABLE tag_head (
    registry      text NOT NULL,
    repository    text NOT NULL,
    tag           text NOT NULL,
    -- The last ticket handed out, and the ticket of the last release that moved the tag.
    issued_ticket bigint NOT NULL DEFAULT 0,
    moved_ticket  bigint,
    tag_seq       bigint NOT NULL DEFAULT 0,
    leaf_hash     bytea,
    -- What the newest entry says; NULL if the tag does not exist (or, at tag_seq 0, was never seen).
    digest        text,
    last_at       timestamptz,
    -- When the registry was last seen to serve exactly that.
    observed_at   timestamptz,
    PRIMARY KEY (registry, repository, tag),
    CHECK ((tag_seq = 0) = (leaf_hash IS NULL))
);

CREATE TABLE audit_entry (
    id          uuid PRIMARY KEY,
    registry    text NOT NULL,
    repository  text NOT NULL,
    tag         text NOT NULL,
    tag_seq     bigint NOT NULL,
    kind        text NOT NULL
        CHECK (kind IN ('baseline', 'intent', 'confirmed', 'unchanged', 'recovered', 'not_applied',
                        'conflict', 'drift', 'deleted', 'annotation', 'redaction', 'key_rotation')),
    purpose     text NOT NULL
        CHECK (purpose IN ('publish', 'rollback', 'restore', 'retention', 'observation')),
    old_digest  text,
    new_digest  text,
    at          timestamptz NOT NULL,
    not_before  timestamptz,
    release_id  uuid,
    reason_code text,
    -- The intent that this is the outcome of, or the entry that a remark is about.
    intent_id   uuid REFERENCES audit_entry,
    source      text,
    -- The exact bytes that are hashed; the columns beside them are for searching.
    body        bytea NOT NULL CHECK (octet_length(body) <= 4096),
    leaf_hash   bytea NOT NULL GENERATED ALWAYS AS (sha256('\x00'::bytea || body)) STORED,
    UNIQUE (registry, repository, tag, tag_seq),
    CHECK ((intent_id IS NOT NULL) = (kind IN ('confirmed', 'recovered', 'not_applied', 'conflict',
                                               'annotation', 'redaction')))
);

-- An intent has at most one outcome.
CREATE UNIQUE INDEX audit_entry_outcome ON audit_entry (intent_id)
    WHERE kind IN ('confirmed', 'recovered', 'not_applied', 'conflict');

CREATE INDEX audit_entry_as_of ON audit_entry (registry, repository, tag, at DESC);
CREATE INDEX audit_entry_newest ON audit_entry (at DESC, id DESC);
CREATE INDEX audit_entry_by_release ON audit_entry (release_id) WHERE release_id IS NOT NULL;

-- What the commitments in an entry open to. It can be erased; the proofs stay valid.
CREATE TABLE opening (
    entry_id     uuid PRIMARY KEY REFERENCES audit_entry,
    salt         bytea NOT NULL CHECK (octet_length(salt) = 32),
    principal    text NOT NULL,
    on_behalf_of text,
    proof        text NOT NULL CHECK (proof IN ('claimed', 'proven')),
    reason       text NOT NULL
);

CREATE INDEX opening_by_principal ON opening (principal);

-- Entries in the order in which they wait for their place in the log.
CREATE TABLE audit_queue (
    enq_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    entry_id uuid NOT NULL UNIQUE REFERENCES audit_entry
);

-- A move that is under way. The row is the lock on the reference: it stays, across attempts and
-- crashes, until there is an outcome.
CREATE TABLE open_intent (
    registry      text NOT NULL,
    repository    text NOT NULL,
    tag           text NOT NULL,
    intent_id     uuid NOT NULL UNIQUE REFERENCES audit_entry,
    tag_move_id   uuid NOT NULL REFERENCES tag_move,
    old_digest    text,
    new_digest    text NOT NULL,
    -- Who may write the outcome: 0 the worker that sends the PUT, greater a reconciler.
    epoch         integer NOT NULL DEFAULT 0,
    -- No PUT of the worker is sent after the deadline; nobody looks before `resolve_after`.
    deadline      timestamptz NOT NULL,
    resolve_after timestamptz NOT NULL,
    PRIMARY KEY (registry, repository, tag),
    CHECK (resolve_after >= deadline)
);

CREATE INDEX open_intent_due ON open_intent (resolve_after);

CREATE FUNCTION refuse_rewrite() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is append-only: % on % is refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END
$$;

CREATE TRIGGER audit_entry_append_only BEFORE UPDATE OR DELETE ON audit_entry
    FOR EACH ROW EXECUTE FUNCTION refuse_rewrite();
CREATE TRIGGER audit_entry_no_truncate BEFORE TRUNCATE ON audit_entry
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_rewrite();
