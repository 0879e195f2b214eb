"""AWS IoT over MQTT 3.1.1 and 5: who is let in, one client's connection, what the account announces of clients.

A refused client of 3.1.1 is closed without a word, as AWS does it, and so is one whose publish or subscribe is denied;
a client of MQTT 5 is told by reason code. Sessions, queues and retained messages are the broker's.
"""

from birthmark.awsiot.mqtt.connections import AwsConnections

__all__ = ["AwsConnections"]
