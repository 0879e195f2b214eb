"""A revocation waits for every worker that lives, and for nobody else."""

from collections import Counter

from birthmark.errors import UnavailableError
from simulation.confirming import confirmed_by


class Peers:
    """Workers that answer when told so many times; leases that run out when asked for so often."""

    def __init__(self, answers: dict[str, int], leases: dict[str, int] | None = None) -> None:
        self.answers = answers
        self.leases = leases or {}
        self.told: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()
        self.unsure: set[str] = set()
        self.pauses = 0

    async def tell(self, worker: str) -> bool:
        self.told[worker] += 1
        return self.told[worker] >= self.answers[worker]

    async def pause(self) -> None:
        self.pauses += 1

    async def is_alive(self, worker: str) -> bool:
        self.asked[worker] += 1
        if worker in self.unsure:
            self.unsure.discard(worker)
            raise UnavailableError
        return self.asked[worker] < self.leases.get(worker, 1000)


async def test_each_worker_is_told_until_it_answers() -> None:
    peers = Peers({"a": 1, "b": 3})
    await confirmed_by(["a", "b"], peers.tell, peers.is_alive, peers.pause)
    assert peers.told == {"a": 1, "b": 3}
    assert peers.pauses == 2


async def test_one_that_never_answers_is_told_until_its_lease_runs_out() -> None:
    peers = Peers({"a": 1, "dead": 1000}, {"dead": 4})
    await confirmed_by(["a", "dead"], peers.tell, peers.is_alive, peers.pause)
    assert peers.told == {"a": 1, "dead": 4}


async def test_one_of_which_nobody_can_say_whether_it_lives_is_told_again() -> None:
    peers = Peers({"a": 2})
    peers.unsure.add("a")
    await confirmed_by(["a"], peers.tell, peers.is_alive, peers.pause)
    assert peers.told == {"a": 2}


async def test_without_others_there_is_nothing_to_wait_for() -> None:
    peers = Peers({})
    await confirmed_by([], peers.tell, peers.is_alive, peers.pause)
    assert not peers.told
