"""Control plane and HTTPS publish: `app` checks who asks, `routing` finds the operation, the rest are its shells.

To serve one more operation, write a method of its name in the module of its group; a new group of them goes into
`app.GROUPS`. Members of its request that are not heeded go into `unserved.UNSERVED`, and all of them into the tables of
`tests/conformance/aws/test_kept_or_refused.py`; a new error into `tests/system/fixes/rows_aws.py`, and into
`errors.HTTP` where its answer is not its kind's (then `tools/make_refusals.py`); the operation into
docs/reference/aws-iot.md.
"""
