"""What a worker counts, which others ask it for."""

from collections import Counter
from unittest.mock import Mock

from birthmark.late_reference import Ref
from birthmark.server.composition_root import ServiceRefs, WorkerCounters


def test_a_worker_that_is_asked_while_it_starts_tells_what_it_has() -> None:
    later = ServiceRefs(Ref(), Ref(), Ref(), Ref(), Ref())
    counting = WorkerCounters(later, Mock(counts=Counter({"dps.disabled": 2})))
    assert counting() == {"refusals": 2}
    later.registrations.fill(Mock(count=3))
    assert counting() == {"refusals": 2, "registrations": 3}
