"""Message routing: rules and routes. This package selects messages; it is pure.

Two dialects use the same values: AWS IoT SQL (`rules.sql`) and the conditions of hub routes (`rules.conditions`).
Matching statements to topics, actions and retries are handled in other modules.
"""
