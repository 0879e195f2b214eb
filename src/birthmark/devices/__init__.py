"""One device across all clouds: find it, show it, count it, and revoke everything that lets it in.

Each cloud brings a `DeviceRecords` with what it knows of devices; this package loops over them and names none.
"""
