"""*Enroll*: upload, check row by row, run and results; and certificate requests that await a decision."""

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
from birthmark.clock_and_entropy import Clock
from birthmark.dps.model import FIRST
from birthmark.net.accepted_connection import Connection
from birthmark.operator_api.cookie_request_guard import CSRF_FIELD
from birthmark.operator_api.page_api_client import SignedInUser
from birthmark.supervised_tasks import run_in_thread
from birthmark.untrusted_json_and_text import cell, printable, reason_of
from birthmark.webconsole.enroll.enrollment_worker import EnrollmentWork
from birthmark.webconsole.enroll.limits import DIRECTORY, DROP, KEPT, MAX_FILES_BYTES, MAX_ROWS, MOST_RECEIVED
from birthmark.webconsole.enroll.multipart import LIST, SIGNERS, TRUST, DropRefusedError, Receiver, receive
from birthmark.webconsole.enroll.parser import UploadKind, sort
from birthmark.webconsole.enroll.uploads import TooManyDropsError, Upload, Uploads
from birthmark.webconsole.event_labels import mark_for_translation
from birthmark.webconsole.i18n import translate
from birthmark.webconsole.page_base import ONCE, FormUnfitError, PageRenderer

COLUMNS = ("row", "device", "thumbprint", "signer", "outcome", "code", "message", "cause", "fix", "at")


def report_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the stable JSON form of a row."""
    problem = row.get("problem") or {}
    told = {"row": row["place"], "device": row["device"], "thumbprint": row["thumbprint"], "signer": row["says"]}
    told |= {"outcome": row["outcome"], "code": problem.get("code"), "message": problem.get("title")}
    return told | {"cause": problem.get("detail"), "fix": problem.get("fix"), "at": row.get("at")}


def as_csv(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return rows as CSV."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for row in rows:
        told = report_row(row)
        writer.writerow(cell(told[name]) for name in COLUMNS)
    return out.getvalue().encode("utf-8", "replace")


def as_json(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return rows as a JSON list of objects."""
    return json.dumps([report_row(row) for row in rows], indent=1).encode()


_PAGE, _WAIT_S, _MAX_SHOWN, _MAX_NAMED = 50, 5, 120, 20
_COPIES = "certificates"
OUTCOMES: Mapping[str, tuple[str, str]] = {
    "would create": (mark_for_translation("would be enrolled"), ""),
    "created": (mark_for_translation("enrolled"), ""),
    "unchanged": (mark_for_translation("already enrolled"), "off"),
    "refused": (mark_for_translation("refused"), "bad"),
}
KINDS: Mapping[str, str] = {
    UploadKind.CERTIFICATES: mark_for_translation("certificates"),
    UploadKind.MANIFEST: mark_for_translation("a supplier's manifest"),
    UploadKind.BUNDLE: mark_for_translation("a station bundle"),
    UploadKind.TABLE: mark_for_translation("a table"),
    UploadKind.ZIP: mark_for_translation("a ZIP file of certificates"),
}


HINTS: Mapping[str, str] = {
    "manifest.signer_unknown": mark_for_translation(
        "If you trust the supplier, upload the list again with its signer's certificate."
    ),
    "manifest.station_unknown": mark_for_translation(
        "If the station is yours, upload the list again with the station's certificate."
    ),
    "manifest.chain_broken": mark_for_translation(
        "If you trust the manufacturer, upload the list again with its root CAs."
    ),
}
"""Fixes for this page, if the command's fix names an option."""


@dataclass(slots=True)
class EnrollPage:
    """Pages of enrollment."""

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

    async def show(self, request: Request, caller: SignedInUser) -> Response:
        """Render the upload form, the uploads, and the pending certificate requests."""
        await run_in_thread(lambda: self.drops.sweep(self.clock.now()))
        instances = await self.site.inside.look(caller, "/dps")
        requests = await self.site.inside.look(caller, "/est/requests")
        own = await run_in_thread(lambda: [(one, one.about, one.state()) for one in self.drops.every(_user(caller))])
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
        return await self.site.draw(request, caller, "enroll.html", values)

    async def drop(self, request: Request, caller: SignedInUser) -> Response:
        """Receive files, and start their check. Raise `DropRefusedError`, `TooManyDropsError`."""
        gate = self.site.desk.gate
        gate.check_origin(request)  # first of all: the form's token arrives with the body
        user, now = _user(caller), self.clock.now()
        names = [one["name"] for one in (await self.site.inside.ask(caller, "/dps")).items]
        if user in self._receiving or len(self._receiving) >= MOST_RECEIVED:
            raise TooManyDropsError(count=len(self._receiving), retry_after_s=_WAIT_S)

        def check(fields: dict[str, str]) -> None:
            gate.check_from_here(request, gate.text(request), fields.get(CSRF_FIELD, ""))
            if fields.get("dps", "") not in names:
                raise DropRefusedError(detail="the provisioning service does not exist, or you have no access to it")

        self._receiving.add(user)
        try:
            path = await run_in_thread(lambda: self.drops.create_directory(user, now))
            try:
                content_type = request.headers.get("content-type", "")
                received = await receive(content_type, _body(request), path / "files", check)
                return await self._begun(request, caller, Upload(path), received)
            except OSError as error:  # such as a full disk
                shutil.rmtree(path, ignore_errors=True)
                raise DropRefusedError(detail=f"this server cannot keep them: {reason_of(error)}") from error
            except BaseException:
                shutil.rmtree(path, ignore_errors=True)
                raise
        finally:
            self._receiving.discard(user)

    async def _begun(self, request: Request, caller: SignedInUser, drop: Upload, received: Receiver) -> Response:
        once = received.fields.get(ONCE, "")
        for one in self.drops.every(_user(caller)):
            if once and one.about.get(ONCE) == once:
                drop.remove()  # form sent twice
                return self.site.go(f"/enroll/{one.id}")
        dropped = await run_in_thread(lambda: sort(received.files))
        await run_in_thread(lambda: self.drops.remove_superseded(_user(caller)))
        names = [one.name for one in received.files if one.kind == LIST]
        about: dict[str, Any] = {
            "user": _user(caller),
            "at": self.clock.now().isoformat(),
            "dps": received.fields["dps"],
            ONCE: once,
        }
        about |= {"kind": dropped.kind.value, "name": names[0], "names": names[:_MAX_NAMED], "count": len(names)}
        about |= {kind: [one.name for one in received.files if one.kind == kind] for kind in (SIGNERS, TRUST)}
        atomic_files.put(drop.path / "about.json", json.dumps(about).encode(), mode=0o600)
        self.work.look(drop, received.files, lambda: self.site.get_user(request))
        self.work.later(KEPT, lambda: self.drops.sweep(self.clock.now()))
        return self.site.go(f"/enroll/{drop.id}")

    async def look(self, request: Request, caller: SignedInUser) -> Response:
        """Render the expected result of each row, the progress of its run, or the results."""
        drop = self.drops.of(_user(caller), request.path_params["drop"])
        given = request.query_params
        outcome = given.get("outcome", "") if given.get("outcome", "") in OUTCOMES else ""
        begin = int(given["after"]) if given.get("after", "").isdecimal() and len(given["after"]) < 8 else 0  # noqa: PLR2004
        state = await run_in_thread(drop.state)
        rows, has_more = await run_in_thread(lambda: drop.page(outcome, begin, _PAGE))
        about = drop.about
        values = {
            "drop": drop.id,
            "list": {**about, "kind": _kind(about)},
            "state_": state,
            "rows": [_shown(row) for row in rows],
            "outcomes": [
                (name, translate(OUTCOMES[name][0]), OUTCOMES[name][1], n) for name, n in _ordered(state.counts)
            ],
            "outcome": outcome,
            "here": _address(drop.id, outcome, begin),
            "following": _address(drop.id, outcome, rows[-1]["place"]) if has_more else None,
            "new": (state.counts or {}).get("would create", 0),
            "command_line": _command(about),
        }
        return await self.site.draw(request, caller, "drop.html", values)

    async def apply(self, request: Request, caller: SignedInUser) -> Response:
        """Start to enroll the valid rows; repeated requests have no effect."""
        await self.site.form(request)
        drop = self.drops.of(_user(caller), request.path_params["drop"])
        if drop.state().phase in {"read", "cut off", "stopped", "failed"} and (drop.path / "looked.jsonl").exists():
            self.site.inside.may(caller, "POST", "/dps/{name}/enrollments", drop.about["dps"])
            self.work.run(drop, lambda: self.site.get_user(request))
        return self.site.go(f"/enroll/{drop.id}")

    async def stop(self, request: Request, caller: SignedInUser) -> Response:
        """Stop a run after its current row."""
        await self.site.form(request)
        drop = self.drops.of(_user(caller), request.path_params["drop"])
        self.work.stop(drop)
        return self.site.go(f"/enroll/{drop.id}")

    async def remove(self, request: Request, caller: SignedInUser) -> Response:
        """Delete a list that is not being processed."""
        await self.site.form(request)
        drop = self.drops.of(_user(caller), request.path_params["drop"])
        if not drop.state().is_busy:
            await run_in_thread(drop.remove)
        return self.site.go("/enroll")

    async def report(self, request: Request, caller: SignedInUser) -> Response:
        """Return the expected or actual results of all rows as a file."""
        drop = self.drops.of(_user(caller), request.path_params["drop"])
        rows, _ = await run_in_thread(lambda: drop.page("", 0, MAX_ROWS))
        if request.path_params["form"] == "json":
            return self.site.file(await run_in_thread(lambda: as_json(rows)), "application/json", "enrollment.json")
        return self.site.file(await run_in_thread(lambda: as_csv(rows)), "text/csv", "enrollment.csv")

    async def decide(self, request: Request, caller: SignedInUser) -> Response:
        """Approve or reject a device's certificate request."""
        given = await self.site.form(request)
        if given.get("deed") not in {"approve", "reject"}:
            raise FormUnfitError(detail="it is neither approved nor rejected")
        is_approved = given.get("deed") == "approve"
        path = f"/est/requests/{{id}}/{'approve' if is_approved else 'reject'}"
        done = await self.site.do(caller, given, "POST", path, given.get("id", ""))
        text = (
            translate("{device} receives its certificate.")
            if is_approved
            else translate("{device} does not receive a certificate.")
        )
        return self.site.go("/enroll", message=text.format(device=printable(done["device"])))


async def _body(request: Request) -> AsyncIterator[bytes]:
    """Yield the body of an authenticated request; its bytes no longer count as those of unauthenticated clients."""
    connection: Connection | None = request.scope.get("extensions", {}).get("connection")
    async for piece in request.stream():
        yield piece
        if connection is not None:
            connection.mark_processed()


def _user(caller: SignedInUser) -> str:
    return caller.caller.user or "operator"


def _kind(about: Mapping[str, Any]) -> str:
    return translate(KINDS.get(about.get("kind", ""), ""))


def _shown(row: Mapping[str, Any]) -> Mapping[str, Any]:
    words, kind = OUTCOMES[row["outcome"]]
    hint = HINTS.get((row["problem"] or {}).get("code", ""))
    return {**row, "told": (translate(words), kind), "hint": None if hint is None else translate(hint)}


def _ordered(counts: Mapping[str, int] | None) -> Sequence[tuple[str, int]]:
    return [(name, (counts or {})[name]) for name in OUTCOMES if (counts or {}).get(name)]


def _address(drop: str, outcome: str, after: int) -> str:
    asked = urlencode({name: value for name, value in (("outcome", outcome), ("after", after)) if value})
    return f"/enroll/{drop}?{asked}" if asked else f"/enroll/{drop}"


def _command(about: Mapping[str, Any]) -> str:
    """Return the equivalent command with the original file names; empty if there are too many."""
    names: list[str] = about.get("names", [about["name"]])
    options = [word for one in about[TRUST] for word in ("--trust-root", one)]
    options += [] if about["dps"] == FIRST else ["--dps", about["dps"]]
    if about["kind"] == UploadKind.CERTIFICATES and not names[about["count"] - 1 :]:
        return ""
    if about["kind"] == UploadKind.CERTIFICATES and about[TRUST]:  # only directories support it
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
    """Return the enrollment pages of a data directory."""
    return EnrollPage(
        site, Uploads(directory / DIRECTORY, site.desk.entropy), EnrollmentWork(site.inside, clock), clock
    )
