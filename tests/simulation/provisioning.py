"""A provisioning service and an EST server on simulated workers: devices by HTTPS, operators, what both write down."""

import itertools
import json
from collections.abc import Coroutine
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Any

from birthmark.dps.model import Instance
from birthmark.errors import BirthmarkError, UnavailableError
from birthmark.est import wire as est_wire
from simulation.book import Book
from simulation.hub import Asked, outcome_of
from simulation.rooms import HOST, MOST_ALIVE, House
from support.azure.sas_tokens import make_sas
from support.kills.history import Fault, Finding, Outcome, of_grants
from support.pki.pki_builders import Holder, a_csr, a_device
from support.server.asgi import Answer, FakePeer, request

DPS_HOST = "dps.example"
_YEAR_S = 365 * 86_400
_VERSION = "api-version=2021-06-01"


@dataclass
class Provisioning:
    """See the module."""

    house: House
    book: Book
    instance: Instance
    devices: dict[str, Holder] = field(default_factory=dict)
    passwords: dict[str, str] = field(default_factory=dict)
    _count: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    async def device(self, name: str) -> None:
        """Enroll a device, and give it a user for EST."""
        self.devices[name] = a_device(common_name=name)
        for asked in (self.enroll(0, name, is_new=True), self.add_user(0, name)):
            await self.house.until(lambda asked=asked: asked.is_over)  # type: ignore[misc] # bound now
            assert asked.doing.outcome is Outcome.OK, asked.answer

    # ---- devices

    def register(self, place: int, name: str) -> Asked:
        """Register, and ask what became of it."""
        asked = self._asked(place, "registered", name)
        at = f"https://{DPS_HOST}/{self.instance.id_scope}/registrations/{name}"
        peer, body = FakePeer(self.devices[name].certificate), json.dumps({"registrationId": name}).encode()
        ask_of = partial(request, asked.worker.cloud, headers={"host": DPS_HOST}, peer=peer)

        async def ask() -> None:
            answer = await ask_of("PUT", f"{at}/register?{_VERSION}", body=body)
            if answer.status == 202:
                operation = json.loads(answer.body)["operationId"]
                answer = await ask_of("GET", f"{at}/operations/{operation}?{_VERSION}")
                assert answer.status != 200 or json.loads(answer.body)["status"] == "assigned", answer.text
            self._end(asked, answer)

        return self._begun(asked, ask())

    def issue(self, place: int, name: str) -> Asked:
        """Ask for a certificate for a new key."""
        asked = self._asked(place, "issued", name)
        password = self.passwords.get(name, "")
        headers = {"authorization": est_wire.render_basic(name, password), "content-type": "application/pkcs10"}
        headers["host"] = "localhost"
        body = est_wire.render_csr(a_csr(name))

        async def ask() -> None:
            url = "https://localhost/.well-known/est/simpleenroll"
            answer = await request(asked.worker.cloud, "POST", url, headers=headers, body=body)
            if answer.status == 200:
                (made,) = est_wire.parse_certs_only(answer.body)
                asked.doing.value = made.thumbprint
            self._end(asked, answer)

        return self._begun(asked, ask())

    # ---- the operator

    def enroll(self, place: int, name: str, *, status: str = "enabled", is_new: bool = False) -> Asked:
        """Enroll a device, or say whether it may register."""
        asked = self._asked(place, f"enrollment {status}", name)
        pair = {"primary": {"certificate": self.devices[name].certificate.pem()}}
        attestation = {"type": "x509", "x509": {"clientCertificates": pair}}
        body = {"registrationId": name, "attestation": attestation, "provisioningStatus": status}
        expires = int(self.house.world.clock.now().timestamp()) + _YEAR_S
        key = self.instance.policies["provisioningserviceowner"][0]
        headers = {"host": DPS_HOST, "authorization": make_sas(DPS_HOST, key, expires, "provisioningserviceowner")}
        headers |= {} if is_new else {"if-match": "*"}

        async def ask() -> None:
            url = f"https://{DPS_HOST}/enrollments/{name}?{_VERSION}"
            content = json.dumps(body).encode()
            answer = await request(asked.worker.cloud, "PUT", url, headers=headers, body=content)
            self._end(asked, answer)

        return self._begun(asked, ask())

    def add_user(self, place: int, name: str) -> Asked:
        """Let a device enroll with a password, which is a new one after a user was removed."""
        asked = self._asked(place, "user given", name)

        async def add() -> None:
            credentials = asked.worker.rooms.credentials
            _, self.passwords[name] = await credentials.ensure_user(name, seed=b"s" * 32, actor="test")

        return self._begun(asked, self._tried(asked, add()))

    def remove_user(self, place: int, name: str) -> Asked:
        """Take the password away."""
        asked = self._asked(place, "user taken", name)

        remove = asked.worker.rooms.credentials.remove_user(name, actor="test")
        return self._begun(asked, self._tried(asked, remove))

    # ---- calls

    @property
    def of_rights(self) -> set[str]:
        """Return the values of what gives and takes rights."""
        kinds = ("enrollment disabled", "enrollment enabled", "user taken", "user given")
        return {doing.value for kind in kinds for doing in self.book.doings(kind)}

    def _asked(self, place: int, kind: str, name: str) -> Asked:
        return Asked(self.house.worker(place), self.book.begun(kind, name, f"{kind} {next(self._count)}"))

    async def _tried(self, asked: Asked, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except UnavailableError:
            self._end(asked, Answer(503, {}, b""))
        except BirthmarkError:
            self._end(asked, Answer(409, {}, b""))
        else:
            self._end(asked, Answer(200, {}, b""))

    def _end(self, asked: Asked, answer: Answer) -> None:
        assert answer.status != HTTPStatus.BAD_REQUEST, answer.text
        if asked.worker.is_alive:
            asked.answer = answer
            asked.doing.end(outcome_of(answer.status))

    def _begun(self, asked: Asked, work: Coroutine[Any, Any, None]) -> Asked:
        asked.worker.process.spawn(work)
        return asked

    # ---- what is proved

    async def findings(self) -> list[Finding]:
        """What no server that keeps its promises could have done."""
        book, worker = self.book, self.house.worker(0)
        registered, issued = book.operations("registered"), book.operations("issued")
        found = [
            *of_grants(book.operations("enrollment disabled"), book.operations("enrollment enabled"), registered),
            *of_grants(book.operations("user taken"), book.operations("user given"), issued),
        ]
        for name in self.devices:
            if any(one.device == name and one.outcome is Outcome.OK for one in registered):
                found_at_hub, _ = await self.house.done(0, worker.rooms.iothub.registry.find(HOST, name))
                if found_at_hub is None:
                    found.append(Finding(Fault.LOST, name, "it was assigned, and is not on record"))
            made = [one.value for one in issued if one.device == name and one.outcome is Outcome.OK]
            on_record = {
                one.certificate.thumbprint for one in await self.house.done(0, worker.rooms.authority.of_name(name))
            }
            found += [Finding(Fault.LOST, name, f"{one.hex()} was issued") for one in made if one not in on_record]
            if len(on_record) > MOST_ALIVE:
                found.append(Finding(Fault.GRANTED, name, f"{len(on_record)} certificates are valid"))
        return found


async def a_provisioning_service(house: House) -> Provisioning:
    """Make one that is linked to the hub of the house."""
    instances = house.worker(0).rooms.instances
    await house.done(0, instances.create("main", DPS_HOST, actor="test"))
    instance = await house.done(0, instances.link("main", HOST, actor="test"))
    return Provisioning(house, Book(house.world), instance)
