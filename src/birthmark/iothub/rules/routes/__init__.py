"""Routes of a hub: which messages go where ("IoT Hub message routing").

`changing` says what may be on record of them; `selecting` says which endpoints a message goes to, `telling` what
twins, devices and connections say of themselves. What sends is the engine of `birthmark.message_routing`.
"""
