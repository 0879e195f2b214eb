"""Message routes of a hub ("IoT Hub message routing").

`configuration_changes` validates changes. `route_matcher` selects the endpoints of a message. `event_messages` creates
the events of twins, devices and connections. The engine of `birthmark.message_routing` sends the messages.
"""
