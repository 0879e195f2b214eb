"""A back end that reads a hub's telemetry with Microsoft's azure-eventhub, and prints one line per event.

    python read_telemetry.py [COUNT]

Without a count, it reads until Ctrl-C. It uses EVENT_HUB_CONNECTION_STR, as Microsoft's samples do, and SSL_CERT_FILE.
"""

import os
import sys
import threading

from azure.eventhub import EventData, EventHubConsumerClient, PartitionContext


def main() -> None:
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else None
    client = EventHubConsumerClient.from_connection_string(
        os.environ["EVENT_HUB_CONNECTION_STR"],
        consumer_group=os.environ.get("CONSUMER_GROUP", "$Default"),
        connection_verify=os.environ.get("SSL_CERT_FILE"),  # azure-eventhub does not read the variable itself
        load_balancing_interval=1,
    )
    count = 0

    def on_event(context: PartitionContext, event: EventData | None) -> None:
        nonlocal count
        if event is None:
            return
        device = (event.system_properties or {})[b"iothub-connection-device-id"].decode()
        place = f"partition {context.partition_id}  {event.sequence_number:4}"
        print(f"{place}  {device}  {event.body_as_str()}", flush=True)
        count += 1
        if count == wanted:  # not from this thread, which the client waits for
            threading.Thread(target=client.close).start()

    client.receive(on_event=on_event, starting_position="-1")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
