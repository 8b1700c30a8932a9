-- The first schema. Times are milliseconds since the Unix epoch, JSON is text.
-- Its twin in ../sqlite has the same tables, columns and nullability; a test compares them.

-- One that was deleted keeps its row, and with it the number of its next run. paused_at and paused_by go together, and so
-- do deleted_at and deleted_by.
CREATE TABLE workflows (
    name TEXT NOT NULL PRIMARY KEY,
    definition TEXT NOT NULL,
    version BIGINT NOT NULL,
    applied_at BIGINT NOT NULL,
    applied_by TEXT NOT NULL,
    next_number BIGINT NOT NULL,
    paused_at BIGINT,
    paused_by TEXT,
    paused_reason TEXT,
    deleted_at BIGINT,
    deleted_by TEXT,
    deleted_reason TEXT
);

-- Every definition ever applied: runs are pinned to theirs.
CREATE TABLE definitions (
    digest TEXT NOT NULL PRIMARY KEY,
    workflow TEXT NOT NULL,
    text TEXT NOT NULL,
    used TEXT NOT NULL,
    bundle TEXT
);

CREATE TABLE events (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id TEXT NOT NULL,
    source TEXT NOT NULL,
    type TEXT NOT NULL,
    subject TEXT,
    received_at BIGINT NOT NULL,
    routed BIGINT NOT NULL CHECK (routed IN (0, 1)),
    duplicates BIGINT NOT NULL,
    duplicate_at BIGINT,
    body TEXT NOT NULL,
    UNIQUE (source, id)
);
CREATE INDEX events_unrouted ON events (received_at, seq) WHERE routed = 0;
CREATE INDEX events_id ON events (id);
CREATE INDEX events_received ON events (received_at);
CREATE INDEX events_type ON events (type, seq);
CREATE INDEX events_source ON events (source, seq);
CREATE INDEX events_subject ON events (subject, seq) WHERE subject IS NOT NULL;
CREATE INDEX events_duplicated ON events (seq) WHERE duplicates > 0;

-- What became of an event, in order. batch points to where it waits; run is set once it led to one,
-- replay where a replay led to it.
CREATE TABLE decisions (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event BIGINT NOT NULL,
    at BIGINT NOT NULL,
    workflow TEXT NOT NULL,
    trigger_index BIGINT,
    decision TEXT NOT NULL,
    reason TEXT,
    batch BIGINT,
    run BIGINT,
    replay BIGINT
);
CREATE INDEX decisions_event ON decisions (event, seq);
CREATE INDEX decisions_batch ON decisions (batch, seq) WHERE batch IS NOT NULL;
CREATE INDEX decisions_decision ON decisions (decision, event);
CREATE INDEX decisions_workflow ON decisions (workflow, event);
CREATE INDEX decisions_replay ON decisions (replay, decision) WHERE replay IS NOT NULL;

-- Events that wait together, one open for each workflow, trigger and key: a batch or a join. trigger_id names what the
-- trigger waits for, so that triggers beside it may come and go; body is the Gathering.
CREATE TABLE batches (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    workflow TEXT NOT NULL,
    trigger_id TEXT NOT NULL,
    batch_key TEXT NOT NULL,
    due_at BIGINT,
    open BIGINT NOT NULL CHECK (open IN (0, 1)),
    body TEXT NOT NULL
);
CREATE UNIQUE INDEX batches_open ON batches (workflow, trigger_id, batch_key) WHERE open = 1;
CREATE INDEX batches_due ON batches (due_at) WHERE open = 1;

-- Stored events that go through today's triggers once more, because a person asked. next_event is where it goes on,
-- last_event where it ends; body is the Replay.
CREATE TABLE replays (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    asked_at BIGINT NOT NULL,
    asked_by TEXT NOT NULL,
    next_event BIGINT NOT NULL,
    last_event BIGINT NOT NULL,
    finished_at BIGINT,
    body TEXT NOT NULL
);
CREATE INDEX replays_open ON replays (seq) WHERE finished_at IS NULL;

CREATE TABLE schedules (
    workflow TEXT NOT NULL,
    trigger_id TEXT NOT NULL,
    next_at BIGINT,
    PRIMARY KEY (workflow, trigger_id)
);
CREATE INDEX schedules_due ON schedules (next_at) WHERE next_at IS NOT NULL;

-- started_at is when the run started for the first time: a cooldown counts from there, and a run without it may still
-- take events in.
CREATE TABLE runs (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    workflow TEXT NOT NULL,
    number BIGINT NOT NULL,
    definition TEXT NOT NULL,
    state TEXT NOT NULL
        CHECK (state IN ('waiting', 'running', 'succeeded', 'rejected', 'failed', 'cancelled', 'coalesced')),
    lane TEXT NOT NULL,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    started_at BIGINT,
    wake_at BIGINT,
    facts TEXT NOT NULL,
    head TEXT NOT NULL,
    UNIQUE (workflow, number)
);
CREATE INDEX runs_running ON runs (workflow, lane, id) WHERE state = 'running';
-- state is always the same here: with it in front, both databases find the next lane by this index and not by runs_state.
CREATE INDEX runs_waiting ON runs (state, workflow, lane, id, started_at) WHERE state = 'waiting';
CREATE INDEX runs_retried ON runs (state, workflow, lane, started_at) WHERE state = 'waiting' AND started_at IS NOT NULL;
CREATE INDEX runs_started ON runs (workflow, lane, started_at) WHERE started_at IS NOT NULL;
CREATE INDEX runs_latest ON runs (workflow, started_at) WHERE started_at IS NOT NULL;
CREATE INDEX runs_wake ON runs (wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX runs_state ON runs (state, id);
CREATE INDEX runs_created ON runs (created_at);

CREATE TABLE run_events (
    run BIGINT NOT NULL,
    event BIGINT NOT NULL,
    PRIMARY KEY (run, event)
);

-- One row a step. session is set exactly while a worker has it. line is where it waits for one, set exactly while it does:
-- the class of what it asks of a host, always of one length, and its workflow, so that who looks for steps passes over
-- what it cannot run. class is that class, where it asks for anything; needs is what it asks for, while it waits and while
-- a worker has it. begun_at is when a worker was last given it.
CREATE TABLE steps (
    run BIGINT NOT NULL,
    position BIGINT NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    ready_at BIGINT,
    session TEXT,
    leased_at BIGINT,
    workflow TEXT NOT NULL,
    priority BIGINT NOT NULL,
    line TEXT COLLATE "C",
    class TEXT,
    needs TEXT,
    begun_at BIGINT,
    body TEXT NOT NULL,
    PRIMARY KEY (run, position),
    CHECK ((line IS NOT NULL) = (state = 'ready')),
    CHECK ((session IS NULL) = (leased_at IS NULL)),
    CHECK (session IS NULL OR state = 'running')
);
CREATE INDEX steps_ready ON steps (line, ready_at, run, position) WHERE state = 'ready';
CREATE INDEX steps_begun ON steps (workflow, begun_at) WHERE begun_at IS NOT NULL;
CREATE INDEX steps_begun_of_class ON steps (workflow, class, begun_at) WHERE class IS NOT NULL AND begun_at IS NOT NULL;
CREATE INDEX steps_leased ON steps (session) WHERE session IS NOT NULL;

-- The accepted inputs of a run, in order.
CREATE TABLE journal (
    run BIGINT NOT NULL,
    version BIGINT NOT NULL,
    at BIGINT NOT NULL,
    input TEXT NOT NULL,
    PRIMARY KEY (run, version)
);

CREATE TABLE models (
    name TEXT NOT NULL PRIMARY KEY,
    versions BIGINT NOT NULL
);

CREATE TABLE versions (
    model TEXT NOT NULL,
    version BIGINT NOT NULL,
    run BIGINT NOT NULL,
    artifact TEXT NOT NULL,
    artifact_ref TEXT NOT NULL,
    metrics TEXT NOT NULL,
    evidence TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (model, version)
);
CREATE INDEX versions_run ON versions (run);

-- promotion is the row of alias_history by which the version came into use.
CREATE TABLE aliases (
    model TEXT NOT NULL,
    alias TEXT NOT NULL,
    version BIGINT NOT NULL,
    promotion BIGINT NOT NULL,
    PRIMARY KEY (model, alias)
);

-- Every move of an alias. under is the promotion that this one replaced: what a rollback goes back to.
CREATE TABLE alias_history (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model TEXT NOT NULL,
    alias TEXT NOT NULL,
    from_version BIGINT,
    to_version BIGINT NOT NULL,
    at BIGINT NOT NULL,
    how TEXT NOT NULL CHECK (how IN ('promoted', 'overridden', 'rolled_back')),
    moved_by TEXT NOT NULL,
    run BIGINT,
    reason TEXT,
    evidence TEXT,
    under BIGINT,
    CHECK (how <> 'rolled_back' OR under IS NULL)
);
CREATE INDEX alias_history_model ON alias_history (model, seq);
CREATE INDEX alias_history_run ON alias_history (run) WHERE run IS NOT NULL;

-- Promotions that an event can take back, from since until until, both inclusive. promotion is their row of alias_history.
-- One at most is open for an alias, which stands on that promotion then.
CREATE TABLE watches (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model TEXT NOT NULL,
    alias TEXT NOT NULL,
    promotion BIGINT NOT NULL,
    version BIGINT NOT NULL,
    run BIGINT NOT NULL,
    pattern TEXT NOT NULL,
    checks TEXT NOT NULL,
    since BIGINT NOT NULL,
    until BIGINT NOT NULL,
    ended_at BIGINT,
    ended TEXT CHECK (ended IN ('held', 'moved', 'stuck')),
    CHECK ((ended_at IS NULL) = (ended IS NULL))
);
CREATE UNIQUE INDEX watches_open ON watches (model, alias) WHERE ended_at IS NULL;
CREATE INDEX watches_due ON watches (until) WHERE ended_at IS NULL;

-- Each decision of a gate on examples that it was told the digest of; uses counts those of the model on the same examples,
-- this one included.
CREATE TABLE holdouts (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model TEXT NOT NULL,
    digest TEXT NOT NULL,
    run BIGINT NOT NULL,
    step TEXT NOT NULL,
    uses BIGINT NOT NULL
);
CREATE INDEX holdouts_digest ON holdouts (model, digest);
CREATE INDEX holdouts_run ON holdouts (run, step, seq);

-- What a promotion rested on, named by the digest of its content.
CREATE TABLE evidence (
    digest TEXT NOT NULL PRIMARY KEY,
    body TEXT NOT NULL
);

-- Where outbound events go, as the orchestrators that run were told: whichever of them puts an event into the outbox asks
-- this list. revision grows with every change of it and names what a copy of it holds; no row ever goes, so that it does
-- not come back. digest is that of the settings; error is why the latest try failed, since when the state has been so.
CREATE TABLE targets (
    name TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    events TEXT NOT NULL,
    digest TEXT NOT NULL,
    active BIGINT NOT NULL CHECK (active IN (0, 1)),
    revision BIGINT NOT NULL,
    seen_at BIGINT NOT NULL,
    sent BIGINT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('ok', 'retrying', 'open', 'disabled')),
    since BIGINT,
    error TEXT
);

-- Servers that models, versions and aliases are written to as well. place is the server's address without who asks; models
-- lists the names of those that are, or is empty where all are. error is why it could not be used the latest time, and
-- next_try_at when it is tried again.
CREATE TABLE mirrors (
    place TEXT NOT NULL PRIMARY KEY,
    models TEXT NOT NULL,
    seen_at BIGINT NOT NULL,
    error TEXT,
    next_try_at BIGINT
);

-- How far a mirror has a model. history is the row of alias_history up to which it has what followed; checked_at is when it
-- was read back and found so, look_at when to look again. aliases says which of the mirror's versions each alias was left at,
-- intended where they are being moved to; noted is what somebody else changed there, at noted_at.
CREATE TABLE mirrored_models (
    place TEXT NOT NULL,
    model TEXT NOT NULL,
    history BIGINT NOT NULL,
    checked_at BIGINT,
    look_at BIGINT NOT NULL,
    failures BIGINT NOT NULL,
    error TEXT,
    aliases TEXT NOT NULL,
    intended TEXT NOT NULL,
    noted TEXT,
    noted_at BIGINT,
    PRIMARY KEY (place, model)
);

-- Versions that a mirror has: number is its own for it.
CREATE TABLE mirrored_versions (
    place TEXT NOT NULL,
    model TEXT NOT NULL,
    version BIGINT NOT NULL,
    number BIGINT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (place, model, version)
);

-- One row per outbound event and target, until it is sent. stream orders: the run's name, or the event's own. failed_at is
-- when it failed first.
CREATE TABLE outbox (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    target TEXT NOT NULL,
    stream TEXT NOT NULL,
    event BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    due_at BIGINT NOT NULL,
    failed_at BIGINT,
    error TEXT
);
CREATE INDEX outbox_target ON outbox (target, seq);
CREATE INDEX outbox_stream ON outbox (target, stream, seq);
CREATE INDEX outbox_event ON outbox (event);

-- draining: the worker itself is leaving. drained: a person wants it to take no more steps; that outlives its sessions.
CREATE TABLE workers (
    name TEXT NOT NULL PRIMARY KEY,
    session TEXT NOT NULL,
    last_seen BIGINT NOT NULL,
    draining BIGINT NOT NULL CHECK (draining IN (0, 1)),
    drained BIGINT NOT NULL CHECK (drained IN (0, 1)),
    body TEXT NOT NULL
);

-- marks says which lines of text came on which stream.
CREATE TABLE logs (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run BIGINT NOT NULL,
    step TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    chunk BIGINT NOT NULL,
    at BIGINT NOT NULL,
    text TEXT NOT NULL,
    marks TEXT NOT NULL,
    UNIQUE (run, step, epoch, chunk)
);
CREATE INDEX logs_run ON logs (run, seq);

-- The latest metrics of attempts that are running, and how long they took to be set up.
CREATE TABLE live_metrics (
    run BIGINT NOT NULL,
    step TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    metrics TEXT NOT NULL,
    set_up_ms BIGINT,
    PRIMARY KEY (run, step)
);

-- What attempts saved of their checkpoint folders last; artifact is an ArtifactRef.
CREATE TABLE checkpoints (
    run BIGINT NOT NULL,
    step TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    at BIGINT NOT NULL,
    artifact TEXT NOT NULL,
    PRIMARY KEY (run, step)
);

-- What steps with `cache` came to last, by what that depends on; results is a Results. run is the one it came of.
CREATE TABLE cache (
    key TEXT NOT NULL PRIMARY KEY,
    run BIGINT NOT NULL,
    at BIGINT NOT NULL,
    results TEXT NOT NULL
);
CREATE INDEX cache_run ON cache (run);

-- The values of a metric of an attempt over time: series is a Series, bounded.
CREATE TABLE metric_series (
    run BIGINT NOT NULL,
    step TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    name TEXT NOT NULL,
    series TEXT NOT NULL,
    PRIMARY KEY (run, step, epoch, name)
);

-- Content by digest; a blob exists once its row here does. place says where its bytes are: none, in blob_chunks, else in
-- the objects that blob_objects names. tree says that it may be a folder's list of files, which refers to other blobs.
-- touched_at is when it came, or when somebody who is to refer to it was told that it is here.
CREATE TABLE blobs (
    digest TEXT NOT NULL PRIMARY KEY,
    bytes BIGINT NOT NULL,
    upload TEXT NOT NULL,
    place TEXT,
    tree BIGINT NOT NULL CHECK (tree IN (0, 1)),
    touched_at BIGINT NOT NULL
);
CREATE INDEX blobs_trees ON blobs (digest) WHERE tree = 1;
CREATE TABLE blob_chunks (
    upload TEXT NOT NULL,
    chunk BIGINT NOT NULL,
    data BYTEA NOT NULL,
    PRIMARY KEY (upload, chunk)
);
CREATE TABLE blob_objects (
    upload TEXT NOT NULL,
    begins BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    object TEXT NOT NULL,
    PRIMARY KEY (upload, begins)
);

-- Folders and buckets that have, or had, bytes of blobs: place is the id that is written there, shown how the settings name
-- it. marked is 0 while the id is only meant to be written there.
CREATE TABLE blob_places (
    place TEXT NOT NULL PRIMARY KEY,
    shown TEXT NOT NULL,
    marked BIGINT NOT NULL CHECK (marked IN (0, 1))
);
CREATE UNIQUE INDEX blob_places_meant ON blob_places (shown) WHERE marked = 0;

-- Bytes that are no blob: on their way in, or out. digest is set while it may be gone on with: bytes are there then, and
-- hash is the state of SHA-256 after them. touched_at is 0 once they are given up.
CREATE TABLE blob_uploads (
    upload TEXT NOT NULL PRIMARY KEY,
    digest TEXT UNIQUE,
    place TEXT,
    bytes BIGINT NOT NULL,
    hash BYTEA NOT NULL,
    touched_at BIGINT NOT NULL
);
CREATE INDEX blob_uploads_touched ON blob_uploads (touched_at);

-- member_of is a list of names.
CREATE TABLE tokens (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    member_of TEXT NOT NULL,
    hash TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    revoked_at BIGINT
);

-- What could not be taken: a delivery that is no event ('in'), or an event that a target refused for ever ('out'; target
-- and event are set). context is what came with the body, as JSON; bytes is how many it had, and body the first of them.
-- digest names a delivery, so that one which comes again is no second letter.
CREATE TABLE dead_letters (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    direction TEXT NOT NULL CHECK (direction IN ('in', 'out')),
    source TEXT NOT NULL,
    reason TEXT NOT NULL,
    received_at BIGINT NOT NULL,
    tries BIGINT NOT NULL,
    context TEXT NOT NULL,
    body BYTEA NOT NULL,
    bytes BIGINT NOT NULL,
    digest TEXT UNIQUE,
    duplicates BIGINT NOT NULL,
    duplicate_at BIGINT,
    target TEXT,
    event BIGINT
);
CREATE INDEX dead_letters_received ON dead_letters (received_at);
CREATE INDEX dead_letters_event ON dead_letters (event) WHERE event IS NOT NULL;

-- What only one orchestrator may do at a time. The row of 'trigger' is locked by whoever creates or admits runs;
-- the others are held by name until they expire.
CREATE TABLE duties (
    name TEXT NOT NULL PRIMARY KEY,
    holder TEXT,
    expires_at BIGINT NOT NULL
);
INSERT INTO duties (name, expires_at) VALUES ('trigger', 0);

-- Runs that steps of other runs ask for, from the question to the answer. due says that something is to be done about
-- it: created, told to the parent, ended. child is set from 'created' on, result from 'over' on.
CREATE TABLE children (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    parent BIGINT NOT NULL,
    position BIGINT NOT NULL,
    epoch BIGINT NOT NULL,
    phase TEXT NOT NULL CHECK (phase IN ('asked', 'created', 'told', 'over')),
    cancelled BIGINT NOT NULL CHECK (cancelled IN (0, 1)),
    due BIGINT NOT NULL CHECK (due IN (0, 1)),
    tried BIGINT NOT NULL,
    child BIGINT,
    body TEXT NOT NULL,
    result TEXT,
    UNIQUE (parent, position, epoch)
);
CREATE INDEX children_due ON children (tried, seq) WHERE due = 1;
CREATE INDEX children_child ON children (child) WHERE child IS NOT NULL;
