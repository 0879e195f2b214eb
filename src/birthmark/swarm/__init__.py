"""Simulated devices, thousands in one process, each with a key and a certificate of its own.

They register (Azure DPS over MQTT or HTTPS), connect (IoT Hub, AWS IoT Core), send, renew by EST, lose their lines and
come back, and some of them misbehave on purpose. What the target ought to do about each is written down, and the report
says whether it did.

`model` holds the values and `rules` the decisions, both without time or chance of their own; `scenario` reads the file;
`links` are lean adapters of the ports in `birthmark.device_transports`, since thousands are open at a time; `device`
and `faults` drive one device each; `run` drives them all; `report` and `dashboard` tell.

Not here: keys in chips (a swarm's keys are files), shadows and twins, and a second machine: one process is a swarm.
"""
