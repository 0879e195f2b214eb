"""Creates devices and faults for tests through the public interfaces: the operator's, the clouds' and EST.

It runs in a thread of the server's process, one command after the other, and keeps its objects until the next reset. It
creates ordinary certificates with P-256 keys.
"""

import base64
import contextlib
import http.client
import json
import os
import ssl
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar, assert_never
from urllib.parse import quote, urlsplit

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from birthmark import atomic_files
from birthmark.auth.connection_strings import parse_connection_string
from birthmark.auth.sas import hmac_sha256, render_sas
from birthmark.broker.model import BrokerMessage
from birthmark.clock_and_entropy import Clock, SystemClock, SystemEntropy
from birthmark.durations import lifetime_of
from birthmark.errors import NotFoundError
from birthmark.est.wire import parse_certs_only, render_basic, render_csr
from birthmark.operator_api.client.server_discovery_and_api_client import OperatorClient, read_endpoints
from birthmark.operator_api.client.vendor_tool_environment import proxy_bypass_variables, variables
from birthmark.pki.certificate_profiles import DEVICE
from birthmark.pki.certificates import Certificate, parse_bundle
from birthmark.pki.issuance import new_serial, self_signed
from birthmark.pki.names_and_registration_ids import name_of
from birthmark.secure_elements.chip_profiles import PROFILES
from birthmark.secure_elements.softhsm_element import create_software_element
from birthmark.testing import provoked_refusals, stdin_commands
from birthmark.testing.device_identity_model import (
    AwsIdentity,
    AzureIdentity,
    ChipFiles,
    EstIdentity,
    Files,
    Row,
    Subject,
)
from birthmark.testing.errors import AnswerError, SubjectUnknownError, WordInvalidError
from birthmark.untrusted_json_and_text import printable, readable, reason_of

_API = "2021-10-01"
_HUB = _DPS = "birthmark"
_PATIENCE_S, _LOOK_S = 30, 0.05
KIT = "kit"
"""Subdirectory of the server's data for created files."""
_TOKEN_LASTS = timedelta(minutes=5)
_OVER = timedelta(hours=1)
_S = TypeVar("_S", AzureIdentity, AwsIdentity, EstIdentity)


class _HttpError(Exception):
    """An HTTP interface rejected a request; `told` has its address, status and body."""

    def __init__(self, *told: str) -> None:
        super().__init__(*told)
        self.told = told


class FaultControl(Protocol):
    """Server-wide faults; see `server.ephemeral_server.TrialServer`."""

    @property
    def clock(self) -> Clock: ...

    @property
    def is_ending(self) -> bool: ...

    def set_clock(self, ahead: timedelta) -> None: ...

    def exhaust_quotas(self, duration: timedelta, *, is_day: bool = False) -> None: ...


class DeviceFactory:
    """Device factory for one server, since its last reset. The server's `clock` sets the dates of its certificates.

    `place` is an exclusive directory for its files.
    """

    def __init__(self, data: Path, operator: OperatorClient, server: FaultControl, place: Path | None = None) -> None:
        self.operator = operator
        self._data, self._server = data, server
        self._place = place or data / KIT
        self._made = 0
        self.subjects: dict[str, Subject] = {}
        self._keys: dict[str, ec.EllipticCurvePrivateKey] = {}

    @property
    def endpoints(self) -> dict[str, Any]:
        """Endpoints of the server with its current keys."""
        return read_endpoints(self._data)

    @property
    def environment(self) -> dict[str, str]:
        found = self.endpoints
        return variables(found) | proxy_bypass_variables(str(found["dps"]["host"]), os.environ)

    def do(self, word: stdin_commands.KitCommand) -> Mapping[str, Any]:
        """Run a command. Raise `BirthmarkError` if it fails or is incomplete."""
        try:
            return self._do(word)
        except OSError as error:
            raise _failed(word, "the server", "nothing", reason_of(error)) from error
        except _HttpError as error:
            raise _failed(word, *error.told) from error
        except Exception as error:
            # Amazon's client creates its classes at run time.
            if (answer := getattr(error, "response", None)) is None:
                raise
            told = answer["Error"]
            raise _failed(word, "AWS IoT", told["Code"], told["Message"]) from error

    def _do(self, word: stdin_commands.KitCommand) -> Mapping[str, Any]:  # noqa: C901, PLR0911, PLR0912 - command to reply
        match word:
            case stdin_commands.Help():
                return stdin_commands.help_of(provoked_refusals.POSSIBLE)
            case stdin_commands.Environment():
                return self.environment
            case stdin_commands.MakeAzureDevice():
                return _json(self.azure_device(word))
            case stdin_commands.MakeAwsThing():
                return _json(self.aws_thing(word))
            case stdin_commands.MakeEstIdentity(name=name):
                return _json(self.est_identity(name))
            case stdin_commands.MakeChip(name=name, kind=kind):
                return _json(self.chip(name, kind))
            case stdin_commands.Refuse(name=name, code=code):
                return provoked_refusals.provoke(self, self.subject(name), code)
            case stdin_commands.Expire(name=name):
                return _json(self.expire(self.subject(name)))
            case stdin_commands.Revoke(name=name):
                return {"taken": self.operator.post(f"/devices/{quote(name, safe='')}/revoke", {})}
            case stdin_commands.RollOver(step=step):
                body = {"share": 0.0} if step == "next" else {}
                found: Mapping[str, Any] = self.operator.post(f"/ca/rollover/{step}", body)
                return found
            case stdin_commands.ListMessages(name=name, limit=limit):
                query: dict[str, object] = {"limit": limit, "device": name or None}
                return {"items": list(self.operator.rows(f"/hubs/{_HUB}/messages", **query))}
            case stdin_commands.IsKnown(name=name):
                return {"known": self._is_known(name)}
            case stdin_commands.ListRefusals():
                return {"items": self._refused(word)}
            case _:
                raise WordInvalidError(word=type(word).__name__, detail="it is done elsewhere")

    def _is_known(self, name: str) -> bool:
        try:
            self.operator.get(f"/devices/{quote(name, safe='')}")
        except NotFoundError:
            return False
        return True

    def _refused(self, asked: stdin_commands.ListRefusals) -> Sequence[Mapping[str, Any]]:
        query = {"limit": asked.limit, "subject": asked.name or None, "code": asked.code or None}
        for _ in range(int(asked.within_s / _LOOK_S)):
            if (found := list(self.operator.rows("/refusals", **query))) or self._server.is_ending:
                return found
            time.sleep(_LOOK_S)
        return list(self.operator.rows("/refusals", **query))

    def subject(self, name: str) -> Subject:
        """Return the device or identity of that name. Raise `SubjectUnknownError`."""
        if (found := self.subjects.get(name)) is None:
            known = ", ".join(sorted(self.subjects))
            told = f"; existing names: {known}" if known else ""
            raise SubjectUnknownError(name=name, known=told, example=f"azure-device {name}")
        return found

    def set_tier(self, hub: str, dps: str = "S1") -> None:
        """Set the tiers of hub and provisioning service, whose limits apply immediately."""
        self.operator.put(f"/hubs/{_HUB}/tier", {"tier": hub})
        self.operator.put(f"/dps/{_DPS}/tier", {"tier": dps})

    def use_up(self, *, is_day: bool = False, duration: timedelta = timedelta(seconds=60)) -> None:
        """Consume the quotas of the tiers; see `server.ephemeral_server.TrialServer.use_up`."""
        self._server.exhaust_quotas(duration, is_day=is_day)

    def set_clock(self, ahead: timedelta) -> None:
        """Shift the server's clock."""
        self._server.set_clock(ahead)

    # ---- Azure

    def azure_device(self, asked: stdin_commands.MakeAzureDevice) -> AzureIdentity:
        """Create an Azure device."""
        files, key, string = None, None, None
        if asked.auth == "x509":
            certificate, files = self._shown(asked)
            self._put_certificate(asked.name, asked.at, certificate)
        elif asked.certificate_file:
            raise WordInvalidError(word=f"azure-device {asked.name}", detail="it has a key, and no certificate")
        elif asked.at == "hub":
            made = self.operator.post(f"/hubs/{_HUB}/devices", {"device_id": asked.name})
            key = str(made["primary_key"])
        else:
            key = base64.b64encode(SystemEntropy().token(32)).decode()
            self.put_enrollment(asked.name, {"type": "symmetricKey", "symmetricKey": _both(key)})
        found = self.endpoints
        hub, dps = found["iothub"], found["dps"]
        if asked.at == "hub":
            proof = "x509=true" if key is None else f"SharedAccessKey={key}"
            string = f"HostName={hub['host']};DeviceId={asked.name};{proof}"
        identity = AzureIdentity(
            name=asked.name,
            auth=asked.auth,
            at=asked.at,
            registration_id=asked.name,
            device_id=asked.name,
            provisioning_host=dps["host"],
            id_scope=dps["id_scope"],
            hub_host=hub["host"],
            trust_bundle=found["trust_bundle"],
            files=files,
            symmetric_key=key,
            connection_string=string,
        )
        return self._keep(msgspec.structs.replace(identity, environment=self.environment | _of_azure(identity)))

    def put_enrollment(self, name: str, attestation: Mapping[str, Any], **more: object) -> None:
        """Create or replace an individual enrollment."""
        body = {"registrationId": name, "deviceId": name, "attestation": attestation, **more}
        self._ask_dps("PUT", name, body, {"If-Match": "*"} if self.has_enrollment(name) else {})

    def has_enrollment(self, name: str) -> bool:
        return self._ask_dps("GET", name, None, may_fail=True)[0] == http.client.OK

    def enrollment(self, name: str) -> dict[str, Any]:
        """Return an enrollment in the service's JSON."""
        found: dict[str, Any] = json.loads(self._ask_dps("GET", name, None)[1])
        return found

    def change_enrollment(self, name: str, **members: object) -> None:
        """Change members of an enrollment."""
        body = self.enrollment(name) | members
        self._ask_dps("PUT", name, body, {"If-Match": "*"})

    def remove_enrollment(self, name: str) -> None:
        self._ask_dps("DELETE", name, None, {"If-Match": "*"})

    def put_other_certificate(self, identity: AzureIdentity) -> None:
        """Set a certificate in a device's record that the device does not have."""
        certificate, _ = self._certificate(identity.name, is_another=True)
        self._put_certificate(identity.name, identity.at, certificate)

    def _put_certificate(self, name: str, at: str, certificate: Certificate) -> None:
        if at == "dps":
            primary = {"primary": {"certificate": certificate.pem()}}
            self.put_enrollment(name, {"type": "x509", "x509": {"clientCertificates": primary}})
            return
        if name in self.subjects:
            with contextlib.suppress(NotFoundError):
                self.operator.delete(f"/hubs/{_HUB}/devices/{quote(name, safe='')}")
        body = {"device_id": name, "thumbprint": certificate.thumbprint.hex()}
        self.operator.post(f"/hubs/{_HUB}/devices", body)

    def _ask_dps(
        self, method: str, name: str, body: object, headers: Mapping[str, str] | None = None, *, may_fail: bool = False
    ) -> tuple[int, bytes]:
        """Send a request to the provisioning service's API. Raise `AnswerError`."""
        dps = self.endpoints["dps"]
        string = parse_connection_string(dps["service_connection_string"])
        until = self._server.clock.now() + _TOKEN_LASTS
        token = render_sas(string.host, hmac_sha256(string.key), until, string.policy)
        sent = {"Authorization": token, "Content-Type": "application/json", **(headers or {})}
        path = f"/enrollments/{quote(name, safe='')}?api-version={_API}"
        url = f"https://{dps['host']}:{dps['https_port']}{path}"
        return self._https(method, url, None if body is None else json.dumps(body), sent, may_fail=may_fail)

    # ---- AWS

    @cached_property
    def iot(self) -> Any:
        """The boto3 client for the account."""
        import boto3

        aws = self.endpoints["aws"]
        return boto3.client(
            "iot",
            endpoint_url=aws["endpoint_url"],
            region_name=aws["region"],
            aws_access_key_id=aws["access_key_id"],
            aws_secret_access_key=aws["secret_access_key"],
            verify=self.endpoints["trust_bundle"],
        )

    def aws_thing(self, asked: stdin_commands.MakeAwsThing) -> AwsIdentity:
        """Create a thing, register its certificate, and attach a policy."""
        certificate, files = self._shown(asked)
        arn = str(self.iot.create_thing(thingName=asked.name)["thingArn"])
        made = self.iot.register_certificate_without_ca(certificatePem=certificate.pem(), status="ACTIVE")
        allowed = {"Effect": "Allow", "Action": asked.action, "Resource": "*"}
        document = asked.policy or json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
        self.iot.create_policy(policyName=asked.name, policyDocument=document)
        self.iot.attach_policy(policyName=asked.name, target=made["certificateArn"])
        self.iot.attach_thing_principal(thingName=asked.name, principal=made["certificateArn"])
        found = self.endpoints
        identity = AwsIdentity(
            name=asked.name,
            arn=arn,
            certificate_arn=made["certificateArn"],
            certificate_id=made["certificateId"],
            policy_name=asked.name,
            endpoint=found["aws"]["data_endpoint"],
            region=found["aws"]["region"],
            trust_bundle=found["trust_bundle"],
            files=files,
        )
        more = {
            "AWS_IOT_ENDPOINT": identity.endpoint,
            "THING_NAME": identity.name,
            "CERT_FILE": files.certificate_file,
            "KEY_FILE": files.key_file,
            "CA_FILE": identity.trust_bundle,
        }
        return self._keep(msgspec.structs.replace(identity, environment=self.environment | more))

    # ---- EST

    def est_identity(self, name: str) -> EstIdentity:
        """Get a certificate over EST as a first-time client."""
        found = self.operator.post("/est/credentials", {"device_id": name})
        username, password = str(found["name"]), str(found["password"])
        key = ec.generate_private_key(ec.SECP256R1())
        self._keys[name] = key
        request = x509.CertificateSigningRequestBuilder(name_of(name)).sign(key, SHA256())
        url = str(self.endpoints["est"]["url"])
        headers = {"Content-Type": "application/pkcs10", "Authorization": render_basic(username, password)}
        body = render_csr(request.public_bytes(Encoding.DER))
        _, answered = self._https("POST", f"{url}/simpleenroll", body, headers)
        (certificate, *_) = parse_certs_only(answered)
        files = self._write(certificate, key)
        more = {
            "EST_URL": url,
            "EST_USERNAME": username,
            "EST_PASSWORD": password,
            "CERT_FILE": files.certificate_file,
            "KEY_FILE": files.key_file,
        }
        return self._keep(
            EstIdentity(
                name=name,
                url=url,
                username=username,
                password=password,
                trust_bundle=self.endpoints["trust_bundle"],
                files=files,
                environment=self.environment | more,
            )
        )

    # ---- chips

    def chip(self, name: str, kind: str) -> ChipFiles:
        """Create a simulated secure element as delivered by the manufacturer."""
        directory = self._new_place()
        element = create_software_element(
            directory / "chip", PROFILES[kind], now=self._server.clock.now(), entropy=SystemEntropy()
        )
        certificate, label, reference = "", "", ""
        if kind != "generic":  # it has no content
            with element.open() as opened:
                certificate, label = opened.certificate().pem(), opened.key().label
                reference = opened.reference_key() if kind == "se050" else ""
        certificate_file, key_file = directory / "certificate.pem", directory / "reference.key"
        if certificate:
            certificate_file.write_text(certificate)
        if reference:
            atomic_files.put(key_file, reference.encode(), 0o600)
        return ChipFiles(
            name=name,
            kind=kind,
            directory=str(directory / "chip"),
            certificate_file=str(certificate_file) if certificate else "",
            key_file=str(key_file) if reference else "",
            key_label=label,
            manufacturer_certificates=str(element.manufacturer_certificates),
            environment=self.environment | dict(element.environment),
        )

    # ---- faults

    def expire(self, subject: Subject) -> Subject:
        """Make a device's certificate expire, and return the updated device.

        An Azure device gets a certificate that expired an hour ago, which its record contains. For others, expired
        certificates are not accepted, so the server's clock moves to an hour after the expiry.
        """
        match subject:
            case AzureIdentity(files=None):
                raise WordInvalidError(word=f"expire {subject.name}", detail="it has a key and no certificate")
            case AzureIdentity():
                certificate, files = self._certificate(subject.name, ended=_OVER)
                self._put_certificate(subject.name, subject.at, certificate)
                environment = subject.environment | _of_files(files)
                return self._keep(msgspec.structs.replace(subject, files=files, environment=environment))
            case AwsIdentity() | EstIdentity():
                end = x509.load_pem_x509_certificate(Path(subject.files.certificate_file).read_bytes())
                off = end.not_valid_after_utc - SystemClock().now()
                if off > stdin_commands.FARTHEST:
                    detail = (
                        "its certificate is valid for longer than the maximum clock offset of "
                        f"{stdin_commands.FARTHEST.days}d"
                    )
                    raise WordInvalidError(word=f"expire {subject.name}", detail=detail)
                self.set_clock(off + _OVER)
                return subject
            case _:
                assert_never(subject)

    # ---- parts

    def _shown(self, asked: stdin_commands.MakeAzureDevice | stdin_commands.MakeAwsThing) -> tuple[Certificate, Files]:
        """Return the certificate that a device presents: the specified one, or a new one."""
        if not asked.certificate_file:
            if asked.key_file:
                raise _unusable(asked, "key_file needs a certificate_file, which is missing")
            return self._certificate(asked.name, lasts=_lasts(asked.lasts))
        raw = _bytes_of(asked, asked.certificate_file)
        certificate, *_ = parse_bundle(raw)
        if b"-----BEGIN" not in raw:
            raise _unusable(
                asked, f"{asked.certificate_file} is not PEM in UTF-8, the only format that the vendors' SDKs read"
            )
        if asked.key_file and _is_of_another(_bytes_of(asked, asked.key_file), certificate):
            raise _unusable(asked, f"{asked.key_file} is not the key of {asked.certificate_file}")
        if asked.key_file and (why := _why_unloadable(asked.certificate_file, asked.key_file)):
            raise _unusable(asked, why)
        ends = certificate.not_after.isoformat()
        return certificate, Files(certificate_file=asked.certificate_file, key_file=asked.key_file, not_after=ends)

    def _certificate(
        self,
        name: str,
        *,
        lasts: timedelta = timedelta(days=1),
        ended: timedelta = timedelta(),
        is_another: bool = False,
    ) -> tuple[Certificate, Files]:
        """Create a self-signed certificate; one that `ended` in the past uses the device's existing key."""
        key = None if is_another else self._keys.get(name)
        key = key or ec.generate_private_key(ec.SECP256R1())
        if not is_another:
            self._keys[name] = key
        began = self._server.clock.now() - (ended + lasts if ended else timedelta())
        made = self_signed(DEVICE, name_of(name), key, serial=new_serial(SystemEntropy()), now=began, lifetime=lasts)
        return made, self._write(made, key)

    def _write(self, certificate: Certificate, key: ec.EllipticCurvePrivateKey) -> Files:
        place = self._new_place()
        certificate_file, key_file = place / "certificate.pem", place / "key.pem"
        certificate_file.write_text(certificate.pem())
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        atomic_files.put(key_file, pem, 0o600)
        ends = certificate.not_after.isoformat()
        return Files(certificate_file=str(certificate_file), key_file=str(key_file), not_after=ends)

    def _new_place(self) -> Path:
        self._made += 1
        place = self._place / str(self._made)
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        return place

    def _keep(self, identity: _S) -> _S:
        self.subjects[identity.name] = identity
        return identity

    def _https(
        self,
        method: str,
        url: str,
        body: bytes | str | None,
        headers: Mapping[str, str],
        *,
        may_fail: bool = False,
    ) -> tuple[int, bytes]:
        parts = urlsplit(url)
        context = ssl.create_default_context(cafile=self.endpoints["trust_bundle"])
        asking = http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=_PATIENCE_S, context=context)
        try:
            asking.request(method, url.removeprefix(f"https://{parts.netloc}"), body, dict(headers))
            answer = asking.getresponse()
            status, content = answer.status, answer.read()
        finally:
            asking.close()
        if status >= http.client.BAD_REQUEST and not may_fail:
            raise _HttpError(url, str(status), content[:200].decode(errors="replace"))
        return status, content


def _unusable(asked: stdin_commands.KitCommand, detail: str) -> WordInvalidError:
    name = str(getattr(asked, "name", ""))
    return WordInvalidError(word=f"{asked.__struct_config__.tag} {name}".strip(), detail=printable(detail))


def _bytes_of(asked: stdin_commands.KitCommand, file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise _unusable(asked, f"{file} cannot be read: {reason_of(error)}") from error


def _why_unloadable(certificate_file: str, key_file: str) -> str:
    """Return why OpenSSL cannot load the files as the vendors' SDKs do; empty if it can."""
    if b"ENCRYPTED" in Path(key_file).read_bytes():
        return f"{key_file} needs a passphrase, which the vendors' SDKs are not given"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate_file, key_file, password=bytes)
    except OSError:
        return f"OpenSSL cannot load {certificate_file} with {key_file}: the vendors' SDKs read PEM with LF or CRLF"
    return ""


def _is_of_another(key: bytes, certificate: Certificate) -> bool:
    """Return whether the key belongs to another certificate.

    The result is False for a reference key, which only names a key in a secure element.
    """
    try:
        public = load_pem_private_key(key, None).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return public.public_bytes(*form) != certificate.public_key().public_bytes(*form)


def _failed(word: stdin_commands.KitCommand, url: str, status: str, body: str) -> AnswerError:
    name, tag = getattr(word, "name", ""), stdin_commands.tag_of(word)
    return AnswerError(url=url, status=status, body=printable(body), name=name, word=f"{tag} {name}".strip())


def message_of_aws(message: BrokerMessage) -> Row:
    """Return a published message as a result row; `client` is the publisher."""
    body, encoding = readable(message.payload)
    return {
        "topic": message.topic,
        "body": body,
        "encoding": encoding,
        "qos": message.qos,
        "retain": message.retain,
        "client": message.publisher,
    }


def _both(key: str) -> dict[str, str]:
    return {"primaryKey": key, "secondaryKey": key}


def _of_azure(identity: AzureIdentity) -> dict[str, str]:
    """Return the environment variables of Microsoft's samples for a device."""
    found = {"PROVISIONING_REGISTRATION_ID": identity.registration_id, "DEVICE_ID": identity.device_id}
    found |= {"HOSTNAME": identity.hub_host, "DPS_X509_REGISTRATION_ID": identity.registration_id}
    if identity.files is not None:
        found |= _of_files(identity.files)
    if identity.symmetric_key is not None:
        found["PROVISIONING_SYMMETRIC_KEY"] = identity.symmetric_key
    if identity.connection_string is not None:
        found["IOTHUB_DEVICE_CONNECTION_STRING"] = identity.connection_string
    return found


def _of_files(files: Files) -> dict[str, str]:
    return {"X509_CERT_FILE": files.certificate_file, "X509_KEY_FILE": files.key_file}


def _lasts(text: str) -> timedelta:
    try:
        return lifetime_of(text)
    except ValueError as error:
        raise WordInvalidError(word=text[:32], detail=str(error)) from error


def _json(made: msgspec.Struct) -> Mapping[str, Any]:
    found: Mapping[str, Any] = msgspec.to_builtins(made)
    return found
