"""Messages that leave: rules and routes. Here is the pure part: what a statement selects of a message.

Two dialects stand in front of the same values: AWS IoT SQL (`rules.sql`) and the conditions of hub routes
(`rules.conditions`). Not here: which statement sees which topic, actions, retries.
"""
