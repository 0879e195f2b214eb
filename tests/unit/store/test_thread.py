"""The thread that does one job after the other."""

import asyncio
import threading
from functools import partial

import pytest

from birthmark.store.sqlite import WriterThread


async def test_jobs_are_done_in_order_in_a_thread_of_their_own() -> None:
    worker, done = WriterThread("test"), list[tuple[int, str]]()

    def job(number: int) -> None:
        done.append((number, threading.current_thread().name))

    await asyncio.gather(*(worker.do(partial(job, number)) for number in range(3)))
    worker.stop()
    assert done == [(0, "test"), (1, "test"), (2, "test")]


async def test_what_a_job_raises_reaches_who_waits_and_the_next_is_done() -> None:
    worker = WriterThread("test")
    failing, fine = worker.do(lambda: 1 // 0), worker.do(lambda: 1)
    with pytest.raises(ZeroDivisionError):
        await failing
    assert await fine == 1
    worker.stop()


async def test_who_stopped_waiting_does_not_get_in_the_way() -> None:
    worker, go = WriterThread("test"), threading.Event()
    given_up, next_one = worker.do(go.wait), worker.do(lambda: 2)
    given_up.cancel()
    go.set()
    assert await next_one == 2
    worker.stop()


def test_a_job_that_ends_after_its_loop_is_no_trouble() -> None:
    go, workers = threading.Event(), []

    async def leave() -> None:
        workers.append(WriterThread("test"))
        workers[0].do(go.wait)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(leave())
    loop.close()
    go.set()
    workers[0].stop()
