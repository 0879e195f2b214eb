"""Control plane and HTTPS publish: `app` authenticates, `request_router` selects the operation, the rest implement it.

To serve another operation, write a method of its name in the module of its group; add a new group to `app.GROUPS`.
Further entries:

- ignored members of its request: `request_router.UNSERVED`
- all members: the tables of `tests/conformance/aws/test_kept_or_refused.py`
- a new error: `tests/system/fixes/rows_aws.py`, and `errors.HTTP` if its response differs from its kind's (then run
  `tools/make_refusals.py`)
- the operation: docs/reference/aws-iot.md
"""
