"""The parent of a server's workers: it owns the directory and the listening sockets, and serves no devices.

Each worker has separate sockets, bound to the same addresses (SO_REUSEPORT), which stay open in the parent. Connections
during a worker's restart wait in the socket's queue and are not refused. Workers are separate programs, never forks, so
that event loop, OpenSSL and token libraries are initialized in each.
"""

import asyncio
import json
import logging
import math
import os
import signal
import socket
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from birthmark.broker.rules.leases import LEASE_S
from birthmark.bus import WorkerUnreachableError
from birthmark.bus.wire import opened
from birthmark.clock_and_entropy import Clock, Entropy, SystemClock, SystemEntropy
from birthmark.errors import BirthmarkError
from birthmark.net.listener import bind_error, bind_sockets
from birthmark.server.cluster.node_identity_and_invitation import check_bus, machine_of
from birthmark.server.connection_descriptor_budget import fit_limits_to_descriptors
from birthmark.server.data_dir import DataDirectory
from birthmark.server.health_and_operator_listeners import Close, serve_plain
from birthmark.server.server_process import reduce_gc_frequency
from birthmark.server.settings import Settings
from birthmark.server.workers.nats_server import NatsServer
from birthmark.server.workers.parent_http_front_end import Front
from birthmark.server.workers.worker_http_client import WorkerRequest
from birthmark.server.workers.worker_process import Start, WorkerHealth, WorkerReady
from birthmark.server.workers.worker_process_configuration import WorkerConfig, at, door_of, names_of
from birthmark.supervised_tasks import cancel_and_wait, note, start_supervised
from birthmark.untrusted_json_and_text import decode_json, reason_of

log = logging.getLogger(__name__)

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0
"""Delays before a worker restarts that failed repeatedly; they are short because new connections wait for it."""
_STEADY_S = 5.0
"""Seconds after which a worker that fails restarts without a delay."""
_READY_S = 120.0
_STOP_S = 40.0
_LOOK_EVERY_S, _LOOK_S = 0.5, 2.0
_STUCK_S = 10.0
"""Timeout after which an unresponsive worker is killed that no other worker has declared dead."""
_LOAD_AGAIN_S = 30.0
"""Delay after a spare program could not be loaded, for example from a partial installation."""
_FRONT_DRAIN_S = 5.0
_MAX_ANSWER_BYTES = 1024 * 1024
_SPARE = "spare"
_OF_THE_PARENT = ("data", "listen", "ports", "only", "workers", "bus", "database", "health_listen", "health_metrics")
"""Settings that a worker restart does not change: the parent has the sockets, the lock and the bus."""


class _Program:
    """A process with all modules loaded, and the pipes to and from it."""

    def __init__(self, process: asyncio.subprocess.Process, control: int, reader: asyncio.StreamReader) -> None:
        self.process = process
        self._control: int | None = control
        self._reader = reader

    def tell(self, line: bytes) -> None:
        """Send the start message to the worker."""
        if self._control is not None:
            with suppress(BrokenPipeError):  # just ended, noticed later
                os.write(self._control, line)
            os.close(self._control)
            self._control = None

    async def read_reply(self) -> bytes:
        """Return the next line of the worker; empty if it ends or exceeds the timeout, which ends it."""
        try:
            async with asyncio.timeout(_READY_S):
                return await self._reader.readline()
        except (TimeoutError, ValueError):
            self.kill()
            return b""

    def kill(self) -> None:
        """Kill a worker that is not needed."""
        self.tell(b"")
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.kill()


class ProgramLoader:
    """Loads programs for workers: one in advance, which replaces a failed worker without delay."""

    def __init__(self, descriptors: Sequence[int] = ()) -> None:
        """Create the loader; every program inherits the sockets of all workers."""
        self._descriptors = descriptors
        self._spare: _Program | None = None

    async def take(self, worker: str) -> _Program:
        """Return the spare program, or a new one. Raise `WorkerUnreachableError`."""
        spare, self._spare = self._spare, None
        return spare if spare is not None and spare.process.returncode is None else await self.load(worker)

    def discard(self) -> None:
        """End the spare program."""
        spare, self._spare = self._spare, None
        if spare is not None:
            spare.kill()

    async def run_spare_loop(self, are_ready: Callable[[], bool]) -> None:
        """Load a spare program whenever all workers are ready and there is none."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            if not are_ready() or (self._spare is not None and self._spare.process.returncode is None):
                continue
            try:
                self._spare = await self.load(_SPARE)
            except (BirthmarkError, OSError) as error:
                note("the spare program of the workers", error)
                await asyncio.sleep(_LOAD_AGAIN_S)

    async def load(self, worker: str) -> _Program:
        """Return a new program for a worker. Raise `WorkerUnreachableError`."""
        given, control = os.pipe()
        heard, answers = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "birthmark.server.workers.worker_process",
                str(os.getpid()),
                str(given),
                str(answers),
                pass_fds=(given, answers, *self._descriptors),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=2,  # stdout of `serve --json` is the parent's
                start_new_session=True,  # only the parent handles it
            )
        except BaseException:
            os.close(control)
            os.close(heard)
            raise
        finally:
            os.close(given)
            os.close(answers)
        reader = asyncio.StreamReader(_MAX_ANSWER_BYTES)
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(heard, "rb")
        )
        program = _Program(process, control, reader)
        is_loaded = False
        try:
            is_loaded = bool(await program.read_reply())
        finally:
            if not is_loaded:
                program.kill()
        if not is_loaded:
            raise WorkerUnreachableError(worker=worker)
        return program


@contextmanager
def _log_restart_errors(worker: str) -> Iterator[None]:
    """Log errors of a worker's restart, which is retried after any error."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - otherwise it is not restarted
        note(f"worker {worker}", error)


class WorkerProcess:
    """A worker that is restarted whenever it ends, until `stop`."""

    def __init__(
        self,
        name: str,
        path: Path,
        programs: ProgramLoader,
        start: Callable[[str], Start],
        record_live: Callable[[Collection[str]], None] = lambda _: None,
    ) -> None:
        """Create a worker; `record_live` gets the ids of the workers that this one does not know to be dead."""
        self.name = name
        self._door = path
        self._is_silent = False
        self._programs = programs
        self._record_live = record_live
        self._id = ""
        self._ready_at = math.inf
        self._start = start
        self._process: asyncio.subprocess.Process | None = None
        self._is_ready = asyncio.Event()
        self._is_stopping = False
        self._keeping: asyncio.Task[None] | None = None
        self._successor: _Program | None = None
        self.restarts = 0

    @property
    def is_ready(self) -> bool:
        """Whether the worker serves and answered the last health check."""
        return self._is_ready.is_set() and not self._is_silent

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def start(self) -> WorkerReady:
        """Start the worker and return its reply. Raise its refusal, or `NobodyThereError`."""
        ready = await self._begin(await self._programs.load(self.name))
        self._keeping = asyncio.create_task(self._keep())
        return ready

    async def replace_with_successor(self) -> bool:
        """Replace the worker with a preloaded successor; return whether the successor serves.

        If the successor cannot be loaded, for example from a partial installation, the old worker continues.
        """
        with _log_restart_errors(self.name):
            self._successor = await self._programs.load(self.name)
        if self._successor is None:
            return False
        self._is_ready.clear()
        self._signal(signal.SIGTERM)
        await self._wait_or_kill(self._process)
        with suppress(TimeoutError):
            async with asyncio.timeout(_READY_S):
                await self._is_ready.wait()
        self._forget_successor()  # if another one was started since
        return self._is_ready.is_set()

    async def stop(self) -> None:
        """Stop the worker permanently."""
        self._is_stopping = True
        self._signal(signal.SIGTERM)
        await self._wait_or_kill(self._process)
        await cancel_and_wait(self._keeping)
        self._forget_successor()

    async def _wait_or_kill(self, process: asyncio.subprocess.Process | None) -> None:
        """Wait for a stopping process; kill it if it does not end or cannot receive the request."""
        if process is None:
            return
        try:
            async with asyncio.timeout(_LOOK_S if self._is_silent else _STOP_S):
                await process.wait()
        except TimeoutError:
            self._kill(process)
            await process.wait()

    def _kill(self, process: asyncio.subprocess.Process) -> None:
        log.error("worker.killed", extra={"worker": self.name})
        with suppress(ProcessLookupError):
            process.kill()

    async def _run_health_check_loop(self, process: asyncio.subprocess.Process) -> None:
        """Check the worker's health periodically; kill it after a prolonged silence."""
        loop = asyncio.get_running_loop()
        heard_at, question = loop.time(), WorkerRequest("GET", b"/healthz")
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            if not self._is_ready.is_set() or self._is_stopping:
                heard_at = loop.time()
                continue
            try:
                async with asyncio.timeout(_LOOK_S):
                    _, body = await question.answered(self._door)
                heard_at, self._is_silent = loop.time(), False
                self._record_live(decode_json(body, WorkerHealth).workers)
            except (OSError, TimeoutError, BirthmarkError):
                self._is_silent = True
                if loop.time() - heard_at > _STUCK_S:
                    self._kill(process)
                    return

    def kill_if_dead(self, live: Collection[str]) -> None:
        """Kill this worker if another one declared it dead and it has not ended itself, for example while suspended."""
        joined_before = asyncio.get_running_loop().time() - 2 * LEASE_S  # what others read since then includes it
        is_serving = self._is_ready.is_set() and not self._is_stopping
        is_dead = bool(live) and self._id not in live and self._ready_at < joined_before
        if is_dead and is_serving and self._process is not None:
            self._kill(self._process)

    def _forget_successor(self) -> None:
        successor, self._successor = self._successor, None
        if successor is not None:
            successor.kill()

    async def _keep(self) -> None:
        pause_s, loop = 0.0, asyncio.get_running_loop()
        while not self._is_stopping:
            began = loop.time()
            if self._process is not None:
                looking = start_supervised(f"worker {self.name}", partial(self._run_health_check_loop, self._process))
                status = await self._process.wait()
                await cancel_and_wait(looking)
                if self._is_stopping:
                    return
                if status:
                    log.error("worker.fell", extra={"worker": self.name, "status": status})
            self._is_ready.clear()
            self._is_silent = False
            self.restarts += 1
            is_steady = loop.time() - began > _STEADY_S
            pause_s = 0.0 if is_steady else min(max(_FIRST_PAUSE_S, 2 * pause_s), _LONGEST_PAUSE_S)
            if self._successor is None:
                await asyncio.sleep(pause_s)
            successor, self._successor = self._successor, None
            with _log_restart_errors(self.name):
                await self._begin(successor or await self._programs.take(self.name))

    async def _begin(self, program: "_Program") -> WorkerReady:
        """Send the start message to a program and return its reply. Raise its refusal, or `NobodyThereError`."""
        self._process = program.process
        program.tell(msgspec.json.encode(self._start(self.name)) + b"\n")
        line = await program.read_reply()
        if not line.endswith(b"\n"):
            raise WorkerUnreachableError(worker=self.name)
        ready = decode_json(line, WorkerReady)
        if ready.refusal is not None:
            opened(ready.refusal, {"worker": self.name, "request": "start"})
        self._is_ready.set()
        self._id, self._ready_at = ready.worker, asyncio.get_running_loop().time()
        return ready

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)


class Parent:
    """Parent process of the workers. `start` returns when every worker serves."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        entropy: Entropy,
        config: Path | None = None,
        read: Callable[[], Settings] | None = None,
    ) -> None:
        """Create the parent; `read` returns the current settings, or raises `ConfigInvalidError`."""
        self._settings, self._read = settings, read
        self._config = None if config is None else str(config.resolve())
        self._clock, self._entropy = clock, entropy
        self._data = DataDirectory(settings.directory, clock, entropy)
        self._bus = settings.bus or ""
        self._workers: list[WorkerProcess] = []
        self._prefix = ""
        self._programs = ProgramLoader()
        self._stack = AsyncExitStack()
        self._restarting = asyncio.Lock()
        self._close_front: Close | None = None

    async def start(self) -> WorkerReady:
        """Create the directory, bind the ports, start NATS if none is configured, then start the workers in sequence.

        The first worker creates everything that a first start creates. Raise `BirthmarkError`.
        """
        settings = self._settings
        self._data.prepare()
        self._stack.callback(self._data.release)
        self._data.forget("endpoints.json")
        check_bus(settings.directory, settings.bus)
        if not self._bus:
            nats = NatsServer(settings.directory, self._entropy)
            self._stack.push_async_callback(nats.stop)
            await nats.start()
            self._bus = nats.url
        machine = machine_of(settings.directory)
        self._prefix = "" if machine is None else machine.prefix
        names = names_of(settings.workers, self._prefix)
        bound = await self._bind_sockets(len(names))
        self._programs = ProgramLoader([one.fileno() for sockets in bound for of in sockets.values() for one in of])
        self._stack.callback(self._programs.discard)
        for name, sockets in zip(names, bound, strict=True):
            door, start = door_of(settings.directory, name), partial(self._told, sockets)
            self._workers.append(WorkerProcess(name, door, self._programs, start, self._record_live))
        self._stack.push_async_callback(self._end_front)
        self._stack.push_async_callback(self._stop_workers)  # stops first: observers see that they end
        first = await self._workers[0].start()
        front = Front(
            self._workers,
            settings.directory,
            has_metrics=settings.health_metrics,
            is_restarting=self._restarting.locked,
        )
        self._close_front = await serve_plain(
            front.probe, front, settings, fit_limits_to_descriptors(settings.bounds()), self._clock, _log_refusal
        )
        for worker in self._workers[1:]:
            await worker.start()
        loading = start_supervised("the spare program", partial(self._programs.run_spare_loop, self._are_ready))
        self._stack.push_async_callback(cancel_and_wait, loading)
        self._data.write("endpoints.json", json.dumps(first.endpoints, indent=2).encode(), is_secret=True)
        return first

    async def restart(self) -> None:
        """Restart all workers in sequence with the current configuration.

        If one cannot restart, the others continue unchanged.
        """
        async with self._restarting:
            self._reload_settings()
            self._programs.discard()  # another version may be installed
            for worker in self._workers:
                if not await worker.replace_with_successor():
                    log.error("server.restart_given_up", extra={"worker": worker.name})
                    return
            log.info("server.restarted", extra={"workers": len(self._workers)})

    def _reload_settings(self) -> None:
        """Reload the settings of the workers; those of the parent apply until it restarts."""
        if self._read is None:
            return
        try:
            found = self._read()
        except (BirthmarkError, OSError) as error:
            reason = error.explain_cause() if isinstance(error, BirthmarkError) else reason_of(error)
            log.error("server.config_not_taken", extra={"reason": reason})  # noqa: TRY400 - the extra has it all
            return
        own = {name: getattr(self._settings, name) for name in _OF_THE_PARENT}
        if changed := sorted(name for name, value in own.items() if getattr(found, name) != value):
            log.warning("server.config_needs_a_start", extra={"settings": ", ".join(changed)})
        self._settings = msgspec.structs.replace(found, **own)

    async def stop(self) -> None:
        await self._stack.aclose()

    async def _end_front(self) -> None:
        if self._close_front is not None:
            await self._close_front(_FRONT_DRAIN_S)

    def _are_ready(self) -> bool:
        return not self._restarting.locked() and all(worker.is_ready for worker in self._workers)

    def _record_live(self, live: Collection[str]) -> None:
        for worker in self._workers:
            worker.kill_if_dead(live)

    async def _stop_workers(self) -> None:
        await asyncio.gather(*(worker.stop() for worker in self._workers))

    def _told(self, sockets: Mapping[str, Sequence[socket.socket]], name: str) -> Start:
        descriptors = {place: [one.fileno() for one in bound] for place, bound in sockets.items()}
        given = WorkerConfig(name, self._bus, len(self._workers), descriptors, self._prefix)
        return Start(self._settings, given, self._config)

    async def _bind_sockets(self, count: int) -> list[dict[str, list[socket.socket]]]:
        """Return the bound sockets of each worker by address and port. Raise the errors of `listen`."""
        settings, ports, found = (
            self._settings,
            self._settings.bound,
            [dict[str, list[socket.socket]]() for _ in range(count)],
        )
        wanted, perhaps = (
            (ports.mqtt, ports.https, ports.est, ports.pki, ports.amqp),
            (ports.https_also, ports.console, ports.amqps),
        )
        for port in filter(None, (*wanted, *perhaps)):
            for address in settings.loopback if port == ports.amqp else settings.listen:
                try:
                    for alone in await bind_sockets(address, port):  # no other process uses it, even of this user
                        alone.close()
                    for sockets in found:
                        sockets[at(address, port)] = await bind_sockets(address, port, is_shared=True)
                except OSError as error:
                    if port in perhaps:
                        continue  # optional port
                    raise bind_error(error, address, port) from error
        for sockets in found:
            for bound in sockets.values():
                for one in bound:
                    self._stack.callback(one.close)
        return found


def _log_refusal(error: BirthmarkError, address: str, _peer: object) -> None:
    """Log a refusal at the front end, which has no refusal ledger."""
    log.info("front.refused", extra={"code": error.code, "address": address})


def run_workers(
    settings: Settings,
    on_ready: Callable[[dict[str, Any], Sequence[str]], None],
    config: Path | None = None,
    read: Callable[[], Settings] | None = None,
) -> None:
    """Serve with several workers until stopped. Arguments as for `run`.

    SIGHUP restarts them in sequence with the settings that `read` returns.
    """
    os.umask(os.umask(0o077) | 0o022)

    async def main() -> None:
        parent = Parent(settings, SystemClock(), SystemEntropy(), config, read)
        over, loop, restarting = asyncio.Event(), asyncio.get_running_loop(), set[asyncio.Task[None]]()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, over.set)

        def restart() -> None:
            restarting.add(task := asyncio.create_task(parent.restart()))
            task.add_done_callback(restarting.discard)

        loop.add_signal_handler(signal.SIGHUP, restart)
        starting, ending = asyncio.create_task(parent.start()), asyncio.create_task(over.wait())
        try:
            await asyncio.wait({starting, ending}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                first = starting.result()
                reduce_gc_frequency()
                on_ready(first.endpoints, first.elsewhere)
                await ending
        finally:
            await cancel_and_wait(starting, ending, *restarting)
            await parent.stop()

    uvloop.run(main())
