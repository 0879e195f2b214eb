"""*Enroll*: what is dropped, looked at row by row, put on record, and told; and requests that wait for a decision."""

import csv
import io
import json
import shlex
import shutil
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from birthmark import atomic_files
from birthmark.clock import Clock
from birthmark.dps.model import FIRST
from birthmark.net.connection import Connection
from birthmark.operator_api.in_process_client import SignedInUser
from birthmark.operator_api.session_guard import CSRF_FIELD
from birthmark.supervised_tasks import beside
from birthmark.untrusted_text import cell, printable, reason_of
from birthmark.webconsole.enroll.limits import DIRECTORY, DROP, KEPT, MAX_FILES_BYTES, MAX_ROWS, MOST_RECEIVED
from birthmark.webconsole.enroll.multipart import LIST, SIGNERS, TRUST, DropRefusedError, Receiver, receive
from birthmark.webconsole.enroll.parser import UploadKind, sort
from birthmark.webconsole.enroll.uploads import TooManyDropsError, Upload, Uploads
from birthmark.webconsole.enroll.worker import EnrollmentWork
from birthmark.webconsole.i18n import say
from birthmark.webconsole.labels import marked
from birthmark.webconsole.page_base import ONCE, FormUnfitError, PageRenderer

COLUMNS = ("row", "device", "thumbprint", "signer", "outcome", "code", "message", "cause", "fix", "at")


def report_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the stable JSON form of a row."""
    problem = row.get("problem") or {}
    told = {"row": row["place"], "device": row["device"], "thumbprint": row["thumbprint"], "signer": row["says"]}
    told |= {"outcome": row["outcome"], "code": problem.get("code"), "message": problem.get("title")}
    return told | {"cause": problem.get("detail"), "fix": problem.get("fix"), "at": row.get("at")}


def as_csv(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return rows as a table."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for row in rows:
        told = report_row(row)
        writer.writerow(cell(told[name]) for name in COLUMNS)
    return out.getvalue().encode("utf-8", "replace")


def as_json(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return rows as a list of objects."""
    return json.dumps([report_row(row) for row in rows], indent=1).encode()


_PAGE, _WAIT_S, _MAX_SHOWN, _MAX_NAMED = 50, 5, 120, 20
_COPIES = "certificates"
OUTCOMES: Mapping[str, tuple[str, str]] = {
    "would create": (marked("would be enrolled"), ""),
    "created": (marked("enrolled"), ""),
    "unchanged": (marked("already enrolled"), "off"),
    "refused": (marked("refused"), "bad"),
}
KINDS: Mapping[str, str] = {
    UploadKind.CERTIFICATES: marked("certificates"),
    UploadKind.MANIFEST: marked("a supplier's manifest"),
    UploadKind.BUNDLE: marked("a bundle of a station"),
    UploadKind.TABLE: marked("a table"),
    UploadKind.ZIP: marked("a ZIP of certificates"),
}


HINTS: Mapping[str, str] = {
    "manifest.signer_unknown": marked("If you trust the supplier, drop the list again with its signer's certificate."),
    "manifest.station_unknown": marked("If the station is yours, drop the list again with its certificate."),
    "manifest.chain_broken": marked("If you trust the manufacturer, upload the list again with its root CAs."),
}
"""What to do here, where the command's fix names an option."""


@dataclass(slots=True)
class EnrollPage:
    """The pages."""

    site: PageRenderer
    drops: Uploads
    work: EnrollmentWork
    clock: Clock
    _receiving: set[str] = field(default_factory=set, init=False)

    def routes(self) -> list[Route]:
        """Return the routes."""
        route = self.site.route
        return [
            route("/enroll", self.show),
            route(DROP, self.drop, "POST"),
            route("/enroll/requests", self.decide, "POST"),
            route("/enroll/{drop}", self.look),
            route("/enroll/{drop}/report.{form}", self.report),
            route("/enroll/{drop}/apply", self.apply, "POST"),
            route("/enroll/{drop}/stop", self.stop, "POST"),
            route("/enroll/{drop}/remove", self.remove, "POST"),
        ]

    async def show(self, request: Request, who: SignedInUser) -> Response:
        """Draw where files are dropped, what was dropped, and who asks for a certificate."""
        await beside(lambda: self.drops.sweep(self.clock.now()))
        instances = await self.site.inside.look(who, "/dps")
        requests = await self.site.inside.look(who, "/est/requests")
        own = await beside(lambda: [(one, one.about, one.state()) for one in self.drops.every(_user(who))])
        values = {
            "instances": [one["name"] for one in instances.items] if instances else [],
            "first": FIRST,
            "drops": [{"id": one.id, **about, "kind": _kind(about), "state": state} for one, about, state in own],
            "requests": None if requests is None else requests.items,
            "most_mib": MAX_FILES_BYTES // 1024**2,
            "most_bytes": MAX_FILES_BYTES,
            "most_rows": MAX_ROWS,
            "minutes": KEPT.total_seconds() // 60,
        }
        return await self.site.draw(request, who, "enroll.html", values)

    async def drop(self, request: Request, who: SignedInUser) -> Response:
        """Take files, and begin to look at them. Raise `DropRefusedError`, `TooManyDropsError`."""
        gate = self.site.desk.gate
        gate.check_origin(request)  # before anything begins: the form's own token comes with what is read
        user, now = _user(who), self.clock.now()
        names = [one["name"] for one in (await self.site.inside.ask(who, "/dps")).items]
        if user in self._receiving or len(self._receiving) >= MOST_RECEIVED:
            raise TooManyDropsError(count=len(self._receiving), retry_after_s=_WAIT_S)

        def check(fields: dict[str, str]) -> None:
            gate.check_from_here(request, gate.text(request), fields.get(CSRF_FIELD, ""))
            if fields.get("dps", "") not in names:
                raise DropRefusedError(detail="there is no such provisioning service, or none that you may look at")

        self._receiving.add(user)
        try:
            path = await beside(lambda: self.drops.room(user, now))
            try:
                content_type = request.headers.get("content-type", "")
                received = await receive(content_type, _body(request), path / "files", check)
                return await self._begun(request, who, Upload(path), received)
            except OSError as error:  # such as a disk that is full
                shutil.rmtree(path, ignore_errors=True)
                raise DropRefusedError(detail=f"this server cannot keep them: {reason_of(error)}") from error
            except BaseException:
                shutil.rmtree(path, ignore_errors=True)
                raise
        finally:
            self._receiving.discard(user)

    async def _begun(self, request: Request, who: SignedInUser, drop: Upload, received: Receiver) -> Response:
        once = received.fields.get(ONCE, "")
        for one in self.drops.every(_user(who)):
            if once and one.about.get(ONCE) == once:
                drop.remove()  # the same form, sent twice
                return self.site.go(f"/enroll/{one.id}")
        dropped = await beside(lambda: sort(received.files))
        await beside(lambda: self.drops.give_way(_user(who)))
        names = [one.name for one in received.files if one.kind == LIST]
        about: dict[str, Any] = {
            "user": _user(who),
            "at": self.clock.now().isoformat(),
            "dps": received.fields["dps"],
            ONCE: once,
        }
        about |= {"kind": dropped.kind.value, "name": names[0], "names": names[:_MAX_NAMED], "count": len(names)}
        about |= {kind: [one.name for one in received.files if one.kind == kind] for kind in (SIGNERS, TRUST)}
        atomic_files.put(drop.path / "about.json", json.dumps(about).encode(), mode=0o600)
        self.work.look(drop, received.files, lambda: self.site.who(request))
        self.work.later(KEPT, lambda: self.drops.sweep(self.clock.now()))
        return self.site.go(f"/enroll/{drop.id}")

    async def look(self, request: Request, who: SignedInUser) -> Response:
        """Draw what would become of each row, or how far its run is, or what became of it."""
        drop = self.drops.of(_user(who), request.path_params["drop"])
        given = request.query_params
        outcome = given.get("outcome", "") if given.get("outcome", "") in OUTCOMES else ""
        begin = int(given["after"]) if given.get("after", "").isdecimal() and len(given["after"]) < 8 else 0  # noqa: PLR2004
        state = await beside(drop.state)
        rows, has_more = await beside(lambda: drop.page(outcome, begin, _PAGE))
        about = drop.about
        values = {
            "drop": drop.id,
            "list": {**about, "kind": _kind(about)},
            "state_": state,
            "rows": [_shown(row) for row in rows],
            "outcomes": [(name, say(OUTCOMES[name][0]), OUTCOMES[name][1], n) for name, n in _ordered(state.counts)],
            "outcome": outcome,
            "here": _address(drop.id, outcome, begin),
            "following": _address(drop.id, outcome, rows[-1]["place"]) if has_more else None,
            "new": (state.counts or {}).get("would create", 0),
            "command_line": _command(about),
        }
        return await self.site.draw(request, who, "drop.html", values)

    async def apply(self, request: Request, who: SignedInUser) -> Response:
        """Begin to put on record what can be; once, however often that is pressed."""
        await self.site.form(request)
        drop = self.drops.of(_user(who), request.path_params["drop"])
        if drop.state().phase in {"read", "cut off", "stopped", "failed"} and (drop.path / "looked.jsonl").exists():
            self.site.inside.may(who, "POST", "/dps/{name}/enrollments", drop.about["dps"])
            self.work.run(drop, lambda: self.site.who(request))
        return self.site.go(f"/enroll/{drop.id}")

    async def stop(self, request: Request, who: SignedInUser) -> Response:
        """End a run after the row that it is at."""
        await self.site.form(request)
        drop = self.drops.of(_user(who), request.path_params["drop"])
        self.work.stop(drop)
        return self.site.go(f"/enroll/{drop.id}")

    async def remove(self, request: Request, who: SignedInUser) -> Response:
        """Forget a list that nobody is at."""
        await self.site.form(request)
        drop = self.drops.of(_user(who), request.path_params["drop"])
        if not drop.state().is_busy:
            await beside(drop.remove)
        return self.site.go("/enroll")

    async def report(self, request: Request, who: SignedInUser) -> Response:
        """Hand out what would become, or became, of each row."""
        drop = self.drops.of(_user(who), request.path_params["drop"])
        rows, _ = await beside(lambda: drop.page("", 0, MAX_ROWS))
        if request.path_params["form"] == "json":
            return self.site.file(await beside(lambda: as_json(rows)), "application/json", "enrollment.json")
        return self.site.file(await beside(lambda: as_csv(rows)), "text/csv", "enrollment.csv")

    async def decide(self, request: Request, who: SignedInUser) -> Response:
        """Let a device have its certificate, or not."""
        given = await self.site.form(request)
        if given.get("deed") not in {"approve", "reject"}:
            raise FormUnfitError(detail="it is neither approved nor rejected")
        is_approved = given.get("deed") == "approve"
        path = f"/est/requests/{{id}}/{'approve' if is_approved else 'reject'}"
        done = await self.site.do(who, given, "POST", path, given.get("id", ""))
        text = say("{device} gets its certificate.") if is_approved else say("{device} gets no certificate.")
        return self.site.go("/enroll", said=text.format(device=printable(done["device"])))


async def _body(request: Request) -> AsyncIterator[bytes]:
    """Yield a body of somebody who is signed in: what was taken of it counts no more among what strangers sent."""
    connection: Connection | None = request.scope.get("extensions", {}).get("connection")
    async for piece in request.stream():
        yield piece
        if connection is not None:
            connection.understood()


def _user(who: SignedInUser) -> str:
    return who.caller.user or "operator"


def _kind(about: Mapping[str, Any]) -> str:
    return say(KINDS.get(about.get("kind", ""), ""))


def _shown(row: Mapping[str, Any]) -> Mapping[str, Any]:
    words, kind = OUTCOMES[row["outcome"]]
    hint = HINTS.get((row["problem"] or {}).get("code", ""))
    return {**row, "told": (say(words), kind), "hint": None if hint is None else say(hint)}


def _ordered(counts: Mapping[str, int] | None) -> Sequence[tuple[str, int]]:
    return [(name, (counts or {})[name]) for name in OUTCOMES if (counts or {}).get(name)]


def _address(drop: str, outcome: str, after: int) -> str:
    asked = urlencode({name: value for name, value in (("outcome", outcome), ("after", after)) if value})
    return f"/enroll/{drop}?{asked}" if asked else f"/enroll/{drop}"


def _command(about: Mapping[str, Any]) -> str:
    """Return the same as it is typed, with the files by the names that they had; empty where those are too many."""
    names: list[str] = about.get("names", [about["name"]])
    options = [word for one in about[TRUST] for word in ("--trust-root", one)]
    options += [] if about["dps"] == FIRST else ["--dps", about["dps"]]
    if about["kind"] == UploadKind.CERTIFICATES and not names[about["count"] - 1 :]:
        return ""
    if about["kind"] == UploadKind.CERTIFICATES and about[TRUST]:  # which count for a directory of them
        copied = _typed(["mkdir", _COPIES]) + " && " + _typed(["cp", "--", *names, _COPIES])
        return f"{copied} && {_typed(['birthmark', 'device', 'enroll-list', _COPIES, *options])}"
    if about["kind"] == UploadKind.CERTIFICATES and len(names) > 1:
        each = _typed(["birthmark", "device", "enroll", *options, "--cert"])
        return f'for file in {_typed(names)}; do {each} "$file"; done'
    if about["kind"] == UploadKind.CERTIFICATES:
        return _typed(["birthmark", "device", "enroll", "--cert", names[0], *options])
    signer = {UploadKind.BUNDLE: "--station", UploadKind.MANIFEST: "--signer"}.get(about["kind"], "")
    signers = [word for one in about[SIGNERS] for word in (signer, one) if signer]
    return _typed(["birthmark", "device", "enroll-list", about["name"], *signers, *options])


def _typed(words: Iterable[str]) -> str:
    return shlex.join(printable(word)[:_MAX_SHOWN] for word in words)


def enroll_page(site: PageRenderer, directory: Path, clock: Clock) -> EnrollPage:
    """Return the pages of a data directory."""
    return EnrollPage(
        site, Uploads(directory / DIRECTORY, site.desk.entropy), EnrollmentWork(site.inside, clock), clock
    )
