-- Version 1. Rows that are found by name lead with the name and carry their tenant; every other tenant row leads with it.
-- Times are milliseconds since 1970. No autoincrement: an order that readers rely on is a counter row.

CREATE TABLE store_meta (
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    epoch      BLOB    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE tenant (
    tenant_id  TEXT    PRIMARY KEY,
    source     TEXT    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Intermediates, shared by all certificates that they sign; the key is the SHA-256 of the content.
CREATE TABLE chain (
    chain_id     BLOB PRIMARY KEY,
    certificates BLOB NOT NULL
) STRICT;

CREATE TABLE certificate (
    certificate_id BLOB    PRIMARY KEY,
    tenant_id      TEXT    NOT NULL REFERENCES tenant,
    names          TEXT    NOT NULL,
    ca             TEXT    NOT NULL,
    serial         TEXT    NOT NULL,
    not_before     INTEGER NOT NULL,
    not_after      INTEGER NOT NULL,
    leaf           BLOB    NOT NULL,
    chain_id       BLOB    NOT NULL REFERENCES chain,
    sealed_key     BLOB    NOT NULL,
    data_key       INTEGER,
    created_at     INTEGER NOT NULL
) STRICT;
CREATE INDEX certificate_by_tenant ON certificate (tenant_id, certificate_id);
CREATE INDEX certificate_by_end ON certificate (not_after);

CREATE TABLE domain (
    pattern        TEXT    PRIMARY KEY,
    tenant_id      TEXT    NOT NULL REFERENCES tenant,
    source         TEXT    NOT NULL,
    state          TEXT    NOT NULL,
    upstream       TEXT,
    certificate_id BLOB    REFERENCES certificate,
    problem        TEXT,
    version        INTEGER NOT NULL,
    created_at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX domain_by_tenant ON domain (tenant_id, pattern);
CREATE INDEX domain_by_certificate ON domain (certificate_id);

-- The owner is the tenant, or nothing for the platform.
CREATE TABLE data_key (
    owner   TEXT    NOT NULL,
    number  INTEGER NOT NULL,
    wrapped BLOB    NOT NULL,
    PRIMARY KEY (owner, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE material (
    ca         TEXT    NOT NULL,
    slot       TEXT    NOT NULL,
    public     BLOB    NOT NULL,
    sealed     BLOB    NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (ca, slot)
) STRICT;

-- While a lease runs, run_at is its end: a job whose holder died is simply due again.
CREATE TABLE job (
    job_key     TEXT    PRIMARY KEY,
    kind        INTEGER NOT NULL,
    tenant_id   TEXT    REFERENCES tenant,
    priority    INTEGER NOT NULL,
    run_at      INTEGER NOT NULL,
    not_before  INTEGER NOT NULL,
    holder      BLOB,
    nonce       BLOB,
    fence       INTEGER NOT NULL,
    lease_until INTEGER,
    failures    INTEGER NOT NULL,
    problem     TEXT,
    order_ca    TEXT,
    order_url   TEXT,
    order_key   BLOB
) STRICT, WITHOUT ROWID;
CREATE INDEX job_by_due ON job (kind, priority, run_at);
CREATE INDEX job_by_tenant ON job (tenant_id, job_key);

CREATE TABLE challenge (
    host              TEXT    NOT NULL,
    token             TEXT    NOT NULL,
    tenant_id         TEXT    NOT NULL REFERENCES tenant,
    key_authorization TEXT    NOT NULL,
    expires_at        INTEGER NOT NULL,
    PRIMARY KEY (host, token)
) STRICT, WITHOUT ROWID;
CREATE INDEX challenge_by_end ON challenge (expires_at);

-- The theoretical arrival time of the generic cell rate algorithm.
CREATE TABLE budget (
    bucket       TEXT    PRIMARY KEY,
    tat          INTEGER NOT NULL,
    frozen_until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The head of each shard is written in the transaction of its entries: no gap, no entry that appears late.
CREATE TABLE feed_head (
    shard INTEGER PRIMARY KEY,
    seq   INTEGER NOT NULL
) STRICT;

CREATE TABLE feed (
    shard INTEGER NOT NULL,
    seq   INTEGER NOT NULL,
    at    INTEGER NOT NULL,
    kind  INTEGER NOT NULL,
    key   TEXT    NOT NULL,
    PRIMARY KEY (shard, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE audit_head (
    owner    TEXT    PRIMARY KEY,
    sequence INTEGER NOT NULL,
    hash     BLOB    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
    owner    TEXT    NOT NULL,
    sequence INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    actor    TEXT    NOT NULL,
    kind     TEXT    NOT NULL,
    subject  TEXT    NOT NULL,
    detail   TEXT    NOT NULL,
    hash     BLOB    NOT NULL,
    PRIMARY KEY (owner, sequence)
) STRICT, WITHOUT ROWID;
