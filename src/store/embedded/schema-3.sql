-- Version 3. The jobs that a process holds, found again once it has died: few at any time.
CREATE INDEX job_by_holder ON job (holder) WHERE holder IS NOT NULL;
