-- Version 5. The certificate of a leaked file is found by its serial number.
CREATE INDEX certificate_by_serial ON certificate (serial);
