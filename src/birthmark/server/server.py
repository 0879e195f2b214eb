"""A server in one process: open the services, bind the ports, and report readiness."""

import asyncio
import contextlib
import inspect
import json
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from birthmark.audit.chain_verification import record_chain_break
from birthmark.audit.signed_heads import AuditKey
from birthmark.awsiot.model import AccessKey
from birthmark.bus import LocalBus, shared
from birthmark.ca.ca_directory import UNNOTED
from birthmark.ca.hierarchy import Hierarchy
from birthmark.ca.root_rollover import Rollovers
from birthmark.clock_and_entropy import Clock, Entropy
from birthmark.devices.post_restore_revocations import revoke_pending
from birthmark.dps.domain_events import InstancesChanged
from birthmark.errors import BirthmarkError, UnavailableError
from birthmark.iothub.domain_events import HubsChanged
from birthmark.iothub.error_mapping import http_error
from birthmark.iothub.service.registry_jobs import IMPORT_RIGHTS
from birthmark.net.bounded_http import ASGIApp, HttpService
from birthmark.net.listener import Listeners, MakeProtocol
from birthmark.net.listener_limits import Limits
from birthmark.net.proxy_protocol import among, networks_of
from birthmark.operator_api.database_location_record import NAME, DatabaseLocation, plain
from birthmark.pki.certificates import Certificate
from birthmark.pki.issuance import SigningKey
from birthmark.server import database_installation_facts
from birthmark.server.cluster.file_sync import FileSync
from birthmark.server.cluster.node_identity_and_invitation import check_bus, format_machine_name, machine_of
from birthmark.server.composition_root import ServerServices, open_rooms
from birthmark.server.connection_descriptor_budget import fit_limits_to_descriptors, for_console, shared_by
from birthmark.server.counter_verification import CounterValues
from birthmark.server.custom_certificate import OwnCertificate, run_recording_loop
from birthmark.server.data_dir import DataDirectory
from birthmark.server.default_services import DEFAULT, ensure_defaults
from birthmark.server.device_endpoint_files import describe, redact_endpoints
from birthmark.server.external_ca import run_ca_refresh_loop, upstream_of
from birthmark.server.health_and_operator_listeners import operator_service, serve_plain, serve_unix_socket
from birthmark.server.mqtt_and_http_dispatch import Applications
from birthmark.server.request_body_limits import body_limit, stream_limit
from birthmark.server.secret_column_encryption import unlock
from birthmark.server.server_certificate_renewal import FreshContext
from birthmark.server.settings import ServedCloud, Settings
from birthmark.server.workers.parent_http_front_end import ClientAddressMiddleware
from birthmark.server.workers.worker_process_configuration import WorkerContext
from birthmark.store import Database, DatabaseLock, hold_database, open_database
from birthmark.store.column_encryption import ColumnCipher
from birthmark.store.database import Heard
from birthmark.supervised_tasks import cancel_and_wait, start_supervised

log = logging.getLogger(__name__)

_ANSWER_S, _ASK_S, _DRAIN_S = 1.0, 0.6, 0.1
"""Shutdown timeouts of a worker's peers; other peers wait for its successor during this time."""
_LOOK_AT_FILES_S = 2.0
_ALONE = "alone"
"""Bus that reaches no other worker: devices are served, and other workers read the changes from the database."""
_LOOK_AT_KEYS_S, _SETTLED_S = 60.0, 0.2


class _StopTimeouts(NamedTuple):
    """Shutdown timeouts of a server's peers."""

    drain_s: float = 5.0
    answer_s: float = 5.0
    ask_s: float = 2.0


class Server:
    """All services of one process. `start` returns when every listener is bound; `stop` shuts down cleanly."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        entropy: Entropy,
        config: Path | None = None,
        context: WorkerContext | None = None,
        *,
        waits_for_peers: bool = True,
    ) -> None:
        """Create a server; with `waits_for_peers`, its shutdown gives connected peers some seconds."""
        self.settings = settings
        self._place = context or WorkerContext()
        self._patience = _StopTimeouts() if self._place.is_alone else _StopTimeouts(_DRAIN_S, _ANSWER_S, _ASK_S)
        if not waits_for_peers:
            self._patience = _StopTimeouts(0.0, 0.0, 0.0)
        self._config = config
        self._clock = clock
        self._entropy = entropy
        self._data = DataDirectory(settings.directory, clock, entropy, is_held=not self._place.is_alone)
        self._closers: list[Callable[[], Any]] = []
        self._doors: list[Callable[[], Any]] = []
        self._fresh: FreshContext | None = None
        self._amqps_port = 0
        self._is_trust_behind = asyncio.Event()
        self._are_keys_changed = asyncio.Event()
        self.is_ready = False
        self.hold: DatabaseLock
        self._sharing: FileSync
        self._rooms: ServerServices
        self.endpoints: dict[str, Any] = {}
        self.elsewhere: list[str] = []
        """Hosts of hubs and provisioning services that are missing in the server's certificate."""

    async def start(self) -> dict[str, Any]:
        """Create or open everything, bind the ports, and return the endpoints. Raise `BirthmarkError`."""
        settings, clock, entropy = self.settings, self._clock, self._entropy
        self._data.prepare()
        self._closers.append(self._data.release)
        check_bus(settings.directory, settings.bus)
        if self._place.is_alone:
            self._data.forget("endpoints.json")  # left by a killed run: it returns once all sockets are bound
        database, rollovers, signer = await self._open()
        bus = await self._bus(database)
        upstream = upstream_of(settings, self._data, clock, entropy)
        rooms = await open_rooms(settings, rollovers, database, bus, clock, entropy, upstream)
        self._rooms = rooms
        self._closers.append(rooms.stop)
        await rollovers.load()
        await self._sharing.share(rollovers.hierarchy.generations)
        if upstream is not None:
            self._closers.append(_start_supervised("the upstream's CA", lambda: run_ca_refresh_loop(upstream)))
        self._data.trust(rollovers.hierarchy)
        rooms.subscribe(bus)
        rooms.devices.answer_workers(bus)
        self._closers += [rooms.settled, bus.stop]
        await revoke_pending(rooms.devices)
        context = self._context(rollovers.hierarchy)
        doors = Applications(
            rooms, settings, clock, entropy, served=context, machine=format_machine_name(settings.directory)
        )
        self._closers.append(_start_supervised("the trust bundle", lambda: self._keep_trust(rollovers.hierarchy)))
        limits = fit_limits_to_descriptors(shared_by(settings.bounds(), self._place.of))
        bind = None if self._place.is_alone else self._place.bind
        proxies = among(networks_of(settings.proxies)) if settings.proxies else None
        listeners = Listeners(
            clock, limits, doors.report, bind=bind, proxies=proxies, handshakes=doors.metering.handshakes
        )
        self._doors = [
            partial(listeners.close, self._patience.drain_s),
            rooms.end_connections,
            database.before_close,
            partial(listeners.drain_pending, self._patience.answer_s, self._patience.ask_s),
            rooms.hub_devices.end_calls,
            listeners.stop_accepting,
        ]
        https_port = rooms.https_port.fill(await self._bind(listeners, context, doors, limits))
        # A start that fails to bind creates no named defaults.
        access_key = await ensure_defaults(rooms, settings, names_it=await self._sharing.is_leader())
        context.start()
        self._closers.append(
            _start_supervised("the server's own certificates", lambda: run_recording_loop(rooms.authority, context))
        )
        self._closers.append(context.stop)
        bus.start()
        self._closers.append(rooms.broker.stop)
        await rooms.broker.start()
        self._start_periodic_tasks(rooms, doors)
        await self._serve_operator(doors, rooms, bus, context, signer, limits)
        described = self._describing(rooms, https_port, await self._est_password(rooms), access_key)
        self.endpoints = described()
        doors.endpoints = redact_endpoints(self.endpoints)
        self.elsewhere = sorted(host for host in self._hosts(rooms) if not context.covers(host))
        self._publish_endpoints(database, described)
        self.is_ready = True
        log.info("server.ready", extra={"host": settings.host_name})
        return self.endpoints

    async def _bus(self, database: Database) -> LocalBus:
        """Return the bus between the services of this server and other workers."""
        incarnation = f"{self._place.name}-{self._entropy.token(6).hex()}"  # identifies the session owner
        if self._place.is_alone:
            return LocalBus(database, incarnation)
        from birthmark.bus.nats import NatsBus, connected, create_tls_context

        files = self.settings.bus_tls
        tls = create_tls_context(files.ca, files.certificate, files.key)
        connection = await connected(self._place.bus, tls)
        self._closers.append(connection.close)
        number, id_ = (
            await database_installation_facts.ensure_worker_number(database),
            await database_installation_facts.ensure_installation_id(database, self._entropy),
        )
        return NatsBus(database, connection, id_, incarnation, number=number)

    async def _open(self) -> tuple[Database, Rollovers, AuditKey]:
        """Open the persistent state: the database, after a check of the audit chain, and the CA that belongs to it."""
        settings = self.settings
        worker = "" if self._place.is_alone else self._place.name
        hold = self.hold = await hold_database(settings.database_url, self._entropy.token(16).hex(), worker)
        self._closers.append(hold.release)
        await self._synchronize_files()
        is_key_new = not self._data.has("audit.seed")
        signer = AuditKey(self._data.secret("audit.seed"))
        database = await open_database(settings.database_url, self._clock, worker=self._place.name, signer=signer)
        self._closers.append(database.close)
        await database_installation_facts.check_not_restoring_or_moved(database, settings.directory)
        await database_installation_facts.note_holder(database, hold)
        if self._place.is_first:
            await database_installation_facts.forget_outboxes(database, self._place.is_name_unused)
        await unlock(database, ColumnCipher.of(self._data.secret("est.seed").encode()))
        sharing = self._sharing = self._shared(database)
        root = await database_installation_facts.root_of(database)
        # Only version 0.1.0 left rows without a signed head, and it recorded no root either.
        is_unsigned = is_key_new and root == UNNOTED
        found = await record_chain_break(database, signer, is_key_new=is_unsigned, is_used=root is not None)
        if found is not None:
            log.error("audit.break", extra={"reason": found})
        hierarchy = self._data.hierarchy(root, settings.ca.places, settings.ca.passphrase)
        await database_installation_facts.note_root(database, hierarchy.anchor)
        told = DatabaseLocation(
            plain(settings.database_url, settings.directory),
            None if self._config is None else str(self._config.resolve()),
        )
        self._data.write(NAME, msgspec.json.encode(told), is_secret=True)
        roots = self._data.generations(hierarchy, settings.ca.places)
        changed = partial(self._apply_hierarchy, hierarchy)
        rollovers = Rollovers(hierarchy, roots, database, self._clock, changed=changed, shared=sharing)
        return database, rollovers, signer

    async def _synchronize_files(self) -> None:
        """Synchronize the shared files before any is created or read, so that a lost seed is not replaced."""
        if machine_of(self.settings.directory) is None:
            return
        database = await open_database(self.settings.database_url, self._clock, worker=f"{self._place.name}-settles")
        try:
            await database_installation_facts.check_not_restoring_or_moved(database, self.settings.directory)
            await self._shared(database).synchronize()
        finally:
            await database.close()

    def _shared(self, database: Database) -> FileSync:
        """Return the synchronization of this directory with those of other machines."""
        settings, alone = self.settings, ""
        if self._place.is_alone:
            alone = "are one process"
        elif settings.bus is None:
            alone = "meet at a NATS of their own"
        return FileSync(database, settings.directory, self._clock, self._entropy, settings.ca.places, alone)

    def _apply_hierarchy(self, hierarchy: Hierarchy) -> None:
        """Apply a changed CA hierarchy to the TLS context and trust files; failed writes are retried."""
        try:
            self._data.trust(hierarchy)
        except BirthmarkError as error:
            log.warning("server.trust_not_written", extra={"reason": error.explain_cause()})
            self._is_trust_behind.set()
        self.reload()

    def _describing(
        self, rooms: ServerServices, https_port: int, est_password: str | None, access_key: AccessKey
    ) -> Callable[[], dict[str, Any]]:
        """Return a function that describes the endpoints with the keys that are current at the time of the call."""
        return lambda: describe(
            self.settings,
            https_port=https_port,
            amqps_port=self._amqps_port,
            instance=rooms.instances.by_name(DEFAULT),
            hub=rooms.iothub.hubs.by_name(DEFAULT),
            est_password=est_password,
            aws_access_key_id=access_key.id,
            aws_secret_access_key=access_key.secret,
        )

    def _publish_endpoints(self, database: Database, described: Callable[[], dict[str, Any]]) -> None:
        """Write the endpoints file, now and when a key is replaced; with several workers the parent does so."""
        if not self._place.is_alone:
            return
        self._write_endpoints()
        database.on_events(self._hear_of_keys)
        self._closers.append(_start_supervised("endpoints.json", lambda: self._run_endpoints_update_loop(described)))

    def _write_endpoints(self) -> None:
        self._data.write("endpoints.json", json.dumps(self.endpoints, indent=2).encode(), is_secret=True)

    def _hear_of_keys(self, events: Sequence[Heard], is_sure: bool) -> None:
        del is_sure
        if any(isinstance(event, InstancesChanged | HubsChanged) for _, event in events):
            self._are_keys_changed.set()

    async def _run_endpoints_update_loop(self, described: Callable[[], dict[str, Any]]) -> None:
        """Rewrite the endpoints file after a key is replaced."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._are_keys_changed.wait(), _LOOK_AT_KEYS_S)
            await asyncio.sleep(_SETTLED_S)  # caches are updated by then
            self._are_keys_changed.clear()
            with contextlib.suppress(BirthmarkError):
                if (made := described()) != self.endpoints:
                    self.endpoints = made
                    self._write_endpoints()

    async def _keep_trust(self, hierarchy: Hierarchy) -> None:
        while True:
            await self._is_trust_behind.wait()
            await asyncio.sleep(_LOOK_AT_FILES_S)
            with contextlib.suppress(BirthmarkError):
                self._data.trust(hierarchy)
                self._is_trust_behind.clear()
                self.reload()

    def _hosts(self, rooms: ServerServices) -> set[str]:
        """Return the host names that devices receive."""
        hubs = {one.host for one in rooms.iothub.hubs.all()} if self.settings.serves(ServedCloud.IOTHUB) else set()
        return hubs | ({one.host for one in rooms.instances.all()} if self.settings.serves(ServedCloud.DPS) else set())

    async def _est_password(self, rooms: ServerServices) -> str | None:
        """Return the password of the EST user that version 0.1.0 created at its first start, if that user exists."""
        user = await rooms.credentials.user(self.settings.est.user)
        is_there = user is not None and self._data.has("est.password")
        return self._data.secret("est.password") if is_there else None

    def _start_periodic_tasks(self, rooms: ServerServices, doors: Applications) -> None:
        """Start the periodic tasks of the services."""
        self._closers.append(_start_supervised("messages to devices", rooms.iothub.c2d.run_expiry_loop))
        self._closers.append(_start_supervised("file uploads", rooms.iothub.files.run_expiry_loop))
        run_jobs = partial(
            rooms.iothub.registry_jobs.keep_running,
            lambda error: http_error(error)[1],
            lambda actor, hub: rooms.people.actor_now(actor, IMPORT_RIGHTS, f"hub/{hub.name}"),
        )
        self._closers.append(_start_supervised("imports and exports of hubs", run_jobs))
        if (storage := rooms.iothub.files.storage) is not None:
            self._closers.append(_start_supervised("the file storage", storage.run_cleanup_loop))
        self._closers.append(_start_supervised("the loop's lag", doors.metering.run_loop_lag_monitor))
        self._closers.append(_start_supervised("alerts", doors.alerting.keep_judging))
        self._closers.append(_start_supervised("figures", CounterValues(rooms.database, self._clock).keep_pruned))
        self._closers.append(_start_supervised("trimming of telemetry", rooms.iothub.telemetry.run_trim_loop))
        self._closers.append(_start_supervised("the index of twins", rooms.iothub.index.run_index_loop))
        evaluation = rooms.iothub.evaluation
        self._closers.append(_start_supervised("configurations of twins", evaluation.run_evaluation_loop))
        self._closers.append(_start_supervised("all twins against configurations", evaluation.run_sweep_loop))
        self._closers.append(_start_supervised("scheduled jobs", rooms.iothub.job_runner.keep_running))
        self._closers.append(_start_supervised("files of other machines", self._sharing.run_sync_loop))
        self._closers.append(_start_supervised("device queues", rooms.hub_connections.run_queue_check_loop))
        self._closers.append(_start_supervised("certificates that no device uses", rooms.aws.claims.keep_sweeping))
        self._closers.append(_start_supervised("jobs of things", rooms.aws.rollout.keep_running))
        self._closers.append(_start_supervised("rules", rooms.aws.rules.engine.keep_running))
        self._closers.append(_start_supervised("rule action deliveries", rooms.aws.rules.queue.keep_running))
        self._closers.append(_start_supervised("routes of hubs", rooms.iothub.routes.run_engines_loop))
        self._closers.append(_start_supervised("streams that routes lead to", rooms.iothub.routes.keep_trimmed))
        self._closers.append(_start_supervised("streams that rules write to", rooms.aws.streams.keep_trimmed))
        self._closers.append(_start_supervised("bulk registrations", rooms.aws.tasks.keep_running))
        self._closers.append(_start_supervised("notices", rooms.notices.keep_writing))
        self._closers.append(rooms.webhooks.release_leases)
        self._closers.append(_start_supervised("sessions of browsers", rooms.sign_in.sessions.keep_noting))
        self._closers.append(_start_supervised("webhooks", rooms.webhooks.run_delivery_loop))
        self._closers.append(_start_supervised("authorizer refresh", rooms.aws_connections.run_deadline_loop))
        self._closers.append(_start_supervised("token expiry", rooms.hub_connections.run_token_expiry_loop))

    async def _serve_operator(
        self,
        doors: Applications,
        rooms: ServerServices,
        bus: LocalBus,
        context: FreshContext,
        signer: AuditKey,
        limits: Limits,
    ) -> None:
        """Serve health and the operator interface.

        A single process uses the health port; with several workers each uses a Unix domain socket for the parent.
        """
        settings, clock = self.settings, self._clock
        seed = self._data.secret("est.seed").encode()
        token = self._data.secret("operator.token")

        def parts() -> Mapping[str, bool | str]:
            there: dict[str, bool | str] = {
                "listeners": self.is_ready,
                "bus": bus.is_draining,
                "hold": self.hold.is_held,
            }
            if (among := shared(bus)) is not None:
                if not among.is_connected:
                    there["bus"] = bus.is_draining and _ALONE
                there["lease"] = rooms.broker.is_fresh
            return there | {"certificate": context.is_good(clock.now())}

        probe = doors.health(parts)
        table = doors.operator_table(seed, signer.public_key, context, self._sharing)
        if self._place.is_alone:
            operator = doors.operator(token, table, parts)
            end = await serve_plain(probe, operator, settings, limits, clock, doors.report)
        else:
            operator = doors.operator(token, table, parts, rooms.broker.live_workers)
            at = self._place.door(settings.directory)
            at.mkdir(parents=True, exist_ok=True, mode=0o700)
            end = await serve_unix_socket(at, ClientAddressMiddleware(operator), limits, clock, doors.report)
        self._closers.append(partial(end, self._patience.drain_s))
        await self._serve_console(doors.console(table), doors, context, limits)

    async def _serve_console(self, app: ASGIApp, doors: Applications, context: FreshContext, limits: Limits) -> None:
        """Serve the operator interface for users on other machines, if its port can be bound."""
        settings, port = self.settings, self.settings.bound.console
        if not port:
            return
        bounds, bind = for_console(limits), None if self._place.is_alone else self._place.bind
        proxies = among(networks_of(settings.proxies)) if settings.proxies else None
        listeners = Listeners(self._clock, bounds, doors.report_console_refusal, bind=bind, proxies=proxies)
        services = {"http": operator_service(app, bounds).protocol}
        try:
            await listeners.listen(settings.listen, port, context.for_people, services)
        except UnavailableError as error:
            log.warning("server.port_not_bound", extra={"port": port, "reason": error.explain_cause()})
            return
        self._closers.append(partial(listeners.close, self._patience.drain_s))
        doors.console_url.fill(f"https://{settings.host_name}:{port}")

    @property
    def rooms(self) -> ServerServices:
        """The services that this server runs since its start."""
        return self._rooms

    def on_considered_dead(self, end: Callable[[], object]) -> None:
        """Call `end` if the other workers considered this one dead and took over its sessions."""
        self._rooms.broker.end_when_lost(end)

    def reload(self) -> None:
        """Reload the server certificate now."""
        if self._fresh is not None:
            self._fresh.refresh()

    def _context(self, hierarchy: Hierarchy) -> FreshContext:
        """Return the TLS context with the configured certificate, or with one that the server's root signs."""
        settings = self.settings
        if settings.server.certificate is None or settings.server.key is None:
            names, places = settings.hosts, settings.ca.places
            self._fresh = FreshContext(
                lambda: self._data.server_certificate(hierarchy, names, places), now=self._clock.now
            )
            return self._fresh
        certificate, key_file = Path(settings.server.certificate), Path(settings.server.key)
        own = OwnCertificate(certificate.expanduser(), key_file.expanduser(), self._clock, settings.host_name)

        def load() -> tuple[Sequence[Certificate], SigningKey]:
            chain, key = own.load()
            self._data.trust_also(hierarchy, chain)
            return chain, key

        self._fresh = FreshContext(load, _LOOK_AT_FILES_S, own.stamp)
        return self._fresh

    async def stop(self) -> None:
        """Stop accepting, close every connection, finish acknowledged work, and close the rest in reverse order.

        The health port reports the shutdown until the connections are closed.
        """
        self.is_ready = False
        async with contextlib.AsyncExitStack() as stack:  # one that fails does not keep the others from ending
            for close in (*self._closers, *self._doors):
                stack.push_async_callback(_ended, close)
            self._closers, self._doors = [], []

    async def _bind(self, listeners: Listeners, context: FreshContext, doors: Applications, limits: Limits) -> int:
        """Bind every port; return the HTTPS port to print.

        This is the standard port if this user may bind it, and 0 if there is none.
        """
        settings, ports = self.settings, self.settings.bound
        mqtt: Mapping[str, MakeProtocol] = {"mqtt": doors.mqtt}
        web: Mapping[str, MakeProtocol] = {
            "http": HttpService(doors.cloud(), limits, body_limit, stream_limit).protocol
        }
        est: Mapping[str, MakeProtocol] = {"http": HttpService(doors.est(), limits, body_limit).protocol}
        for port, services in ((ports.mqtt, mqtt), (ports.https, web), (ports.est, est)):
            if port:
                await listeners.listen(settings.listen, port, context, services)
        if ports.pki:
            plain = HttpService(doors.pki(), limits, body_limit).protocol
            await listeners.listen(settings.listen, ports.pki, None, {"http": plain})
        if ports.amqps:
            amqp: Mapping[str, MakeProtocol] = {"amqp": doors.amqp}
            self._amqps_port = await self._listen_if_possible(listeners, ports.amqps, context, amqp)
        if ports.amqp:
            await listeners.listen(settings.loopback, ports.amqp, None, {"amqp": doors.amqp})
        if not ports.https_also:
            return ports.https
        try:
            await listeners.listen(settings.listen, ports.https_also, context, {**mqtt, **web})
        except UnavailableError as error:
            log.info("server.port_not_bound", extra={"port": ports.https_also, "reason": error.explain_cause()})
            return ports.https
        return ports.https_also

    async def _listen_if_possible(
        self, listeners: Listeners, port: int, context: FreshContext, services: Mapping[str, MakeProtocol]
    ) -> int:
        """Return the port, or 0 if it cannot be bound."""
        try:
            await listeners.listen(self.settings.listen, port, context, services)
        except UnavailableError as error:
            log.info("server.port_not_bound", extra={"port": port, "reason": error.explain_cause()})
            return 0
        return port


def _start_supervised(name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], Any]:
    """Start a supervised background task; return the function that stops it."""
    return partial(cancel_and_wait, start_supervised(name, work))


async def _ended(close: Callable[[], Any]) -> None:
    closing = close()
    if inspect.isawaitable(closing):
        await closing
