"""A kit for the tests of programs that speak to these clouds: a server as new for each test, devices, and real faults.

Words on the input of `birthmark test-server` make devices and faults, for tests in any language (`words`, `workshop`,
`refusing`: in the server's process). The pytest plugin sends the same words (`process`, `cloud`, `plugin`: in the
process of the tests). Nothing answers in the place of the server: a fault is a state in which it is.
"""
