"""Topic rules, the destinations to which they may send, and the streams to which they write."""

from birthmark.awsiot.model import DataStream, RuleDestination, TopicRule
from birthmark.store import insert
from birthmark.store.row_mapper import RowMapper
from birthmark.store.table_statements import change, find, guard_unchanged, page, remove

MAX_RULES = 1000
RULES = RowMapper(TopicRule)
rules = RULES.table("aws_topic_rules", "name", sealed=("payload",))  # a header may contain a token
ADD_RULE = insert(rules, ignore_existing=True)
GET_RULE = find(rules)
LIST_RULES = page(rules, "name")
ALL_RULES = find(rules, rules.c.name != "", order=rules.c.name, limit=MAX_RULES)
CHANGE_RULE = change(rules, ("payload", "is_disabled", "modified_at", "revision"), "name", "revision")
STOP_RULE = change(rules, ("is_disabled",), "name")
REMOVE_RULE = remove(rules)
RULE_IS_THERE = guard_unchanged(rules, "name")

MAX_DESTINATIONS = 1000
DESTINATIONS = RowMapper(RuleDestination)
destinations = DESTINATIONS.table("aws_rule_destinations", "id", sealed=("token",))
ADD_DESTINATION = insert(destinations)
GET_DESTINATION = find(destinations)
LIST_DESTINATIONS = page(destinations, "id")
ALL_DESTINATIONS = find(destinations, destinations.c.id != "", order=destinations.c.id, limit=MAX_DESTINATIONS)
CHANGE_DESTINATION = change(destinations, ("status", "reason", "token", "modified_at"), "id", "status", "modified_at")
REMOVE_DESTINATION = remove(destinations)

MAX_STREAMS = 500
STREAMS = RowMapper(DataStream)
streams = STREAMS.table("aws_streams", "name")
ADD_STREAM = insert(streams, ignore_existing=True)
GET_STREAM = find(streams)
LIST_STREAMS = page(streams, "name")
REMOVE_STREAM = remove(streams)
