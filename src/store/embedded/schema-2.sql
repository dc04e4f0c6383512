-- Version 2. What becomes of certificates and domains over time; each of the texts is a JSON object whose keys may grow.

-- How it came here, the authority's renewal advice, whether it was superseded or revoked.
ALTER TABLE certificate ADD COLUMN standing TEXT NOT NULL DEFAULT '{}';
-- When its private key is to be destroyed; nothing while it may serve.
ALTER TABLE certificate ADD COLUMN retire_at INTEGER;
CREATE INDEX certificate_by_retirement ON certificate (retire_at) WHERE retire_at IS NOT NULL;

-- A certificate under each of its names.
CREATE TABLE certificate_name (
    pattern        TEXT NOT NULL,
    certificate_id BLOB NOT NULL REFERENCES certificate ON DELETE CASCADE,
    PRIMARY KEY (pattern, certificate_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX certificate_name_by_certificate ON certificate_name (certificate_id);
-- Version 1 wrote one name for each certificate.
INSERT INTO certificate_name (pattern, certificate_id) SELECT names, certificate_id FROM certificate;

-- What was learnt about a domain: which challenge it passed last, what its DNS said.
ALTER TABLE domain ADD COLUMN memory TEXT NOT NULL DEFAULT '{}';
