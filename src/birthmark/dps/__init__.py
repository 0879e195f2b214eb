"""Azure Device Provisioning Service, compatible with its unmodified SDKs.

Specification: DPS device API 2019-03-31 to 2021-10-01 (MQTT, HTTPS and AMQP), service API 2018-09-01-preview to
2021-10-01; from 2025-07-01-preview and 2026-11-01, certificates issued at registration. Other versions are accepted.

| endpoint | served |
|---|---|
| MQTT `$dps/registrations/…` | register and operation status; X.509 individual and group, symmetric keys |
| HTTPS `/{scope}/registrations/{id}/register`, `/operations/{op}`, lookup | the same, and TPM |
| AMQP `{scope}/registrations/{id}` | the same, TPM by SASL |
| HTTPS `/enrollments`, `/enrollmentGroups`, `/registrations` | create, read, update, delete, query, bulk |

Not implemented: the resource-manager paths (the operator API registers CA certificates).
"""
