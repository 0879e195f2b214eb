"""Azure Device Provisioning Service, as its unmodified SDKs see it.

Specification: DPS device API 2019-03-31 to 2021-10-01 (MQTT and HTTPS), service API 2018-09-01-preview to 2021-10-01;
of 2025-07-01-preview and 2026-11-01 certificates with the registration. Other versions are accepted.

| endpoint | served |
|---|---|
| MQTT `$dps/registrations/…` | register and operation status; X.509 individual and group, symmetric keys |
| HTTPS `/{scope}/registrations/{id}/register`, `/operations/{op}`, lookup | the same, and TPM |
| HTTPS `/enrollments`, `/enrollmentGroups`, `/registrations` | create, read, update, delete, query, bulk |

Deliberately not: custom allocation (later), AMQP, the resource-manager paths (CA certificates are put on record
by the operator's interface).
"""
