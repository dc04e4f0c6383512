-- Version 4. Whose turn it is among the tenants with due jobs.
CREATE INDEX job_by_turn ON job (kind, priority, tenant_id, run_at);
