"""Message routes of a hub ("IoT Hub message routing").

`changing` validates configuration changes; `selecting` selects the endpoints of a message; `telling` creates events of
twins, devices and connections. The engine of `birthmark.message_routing` sends the messages.
"""
