"""Test kit for programs that use these clouds: a fresh server for each test, devices, and real faults.

Commands on the input of `birthmark test-server` create devices and faults, for tests in any language
(`stdin_commands`, `device_and_fault_factory`, `provoked_refusals`: in the server's process). The pytest plugin sends
the same commands (`server_process`, `cloud`, `plugin`: in the test process). Nothing is mocked: a fault is a real state
of the server.
"""
