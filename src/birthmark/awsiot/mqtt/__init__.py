"""AWS IoT over MQTT 3.1.1 and 5: admission, connections, and lifecycle events.

A refused 3.1.1 client is disconnected without a response, as in AWS, and so is a client with a denied publish or
subscribe. An MQTT 5 client gets a reason code. Sessions, queues, and retained messages belong to the broker.
"""

from birthmark.awsiot.mqtt.admission_and_reauthentication import AwsConnections

__all__ = ["AwsConnections"]
