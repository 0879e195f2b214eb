"""Device simulator: thousands of devices in one process, each with its own key and certificate.

They register (Azure DPS over MQTT or HTTPS), connect (IoT Hub, AWS IoT Core), send, renew over EST, lose their
connections and reconnect. Some of them misbehave on purpose. The scenario states the expected reaction of the target,
and the report compares it with the actual one.

`model` has the values and `rules` the decisions, both free of clock and randomness; `scenario` reads the file. `links`
has lightweight adapters of the ports in `birthmark.device_transports`, for thousands of open connections. `device` and
`faulty_device` drive one device each; `runner` drives them all; `report` and `progress_display` show results.

Not here: keys in secure elements (a swarm's keys are files), shadows and twins, and a second machine: a swarm is one
process.
"""
