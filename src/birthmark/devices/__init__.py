"""A device across all clouds: find, show, count, and revoke all its credentials.

Each cloud provides a `DeviceRecords` with its records of devices; this package loops over them and names none.
"""
