"""The console: all pages, for one listener."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from birthmark.clock_and_entropy import Clock, Entropy
from birthmark.errors import NotFoundError
from birthmark.events.merged_event_feed import Feed
from birthmark.operator_api.api_router import ApiContext, Endpoint
from birthmark.operator_api.cookie_request_guard import local_path
from birthmark.operator_api.page_api_client import InProcessClient, SignedInUser
from birthmark.operator_api.sign_in_handler_base import SignInHandlers
from birthmark.store import Database
from birthmark.untrusted_json_and_text import printable
from birthmark.webconsole.account import MePage
from birthmark.webconsole.approvals import ApprovalsPage
from birthmark.webconsole.audit import AuditPage
from birthmark.webconsole.aws_jobs import JobsPages
from birthmark.webconsole.aws_provisioning_templates import AwsTemplatesPage
from birthmark.webconsole.bulk_device_actions import BulkActionPages
from birthmark.webconsole.certificate import CertificatePage
from birthmark.webconsole.certificates import CertificatesPage
from birthmark.webconsole.configurations import ConfigurationsPages
from birthmark.webconsole.dashboard import TodayPage
from birthmark.webconsole.device import DevicePage
from birthmark.webconsole.devices import DevicesPage
from birthmark.webconsole.enroll.page import enroll_page
from birthmark.webconsole.events_and_alerts import AlertsPage
from birthmark.webconsole.i18n import LANGUAGES
from birthmark.webconsole.live_updates import LiveUpdates
from birthmark.webconsole.page_base import PageRenderer, ServerInfo
from birthmark.webconsole.refusals import RefusalsPages
from birthmark.webconsole.registered_ca_certificates import AuthoritiesPage
from birthmark.webconsole.rollover import RolloverPage
from birthmark.webconsole.settings import SettingsPage
from birthmark.webconsole.templates_and_static_files import LANGUAGE_COOKIE, TemplateRenderer, file_route
from birthmark.webconsole.topic_rules import RulesPages
from birthmark.webconsole.users import PeoplePages

_YEAR_S = 365 * 86_400
_MAX_SHOWN = 200


class PageMissingError(NotFoundError):
    """The page does not exist."""

    code = "console.page_missing"
    cause = "The page {path} does not exist."
    fix = "Choose a page in the navigation, or search for a device."
    for_a_person = "the user must do this in the browser"
    path: str


@dataclass(frozen=True, slots=True)
class Console:
    """Pages of the web console."""

    site: PageRenderer
    pages: Sequence[BaseRoute]

    @classmethod
    def of(
        cls,
        desk: SignInHandlers,
        table: Sequence[Endpoint],
        context: ApiContext,
        *,
        about: ServerInfo,
        database: Database,
        counted: Callable[[], Awaitable[Mapping[str, int]]],
        clock: Clock,
        entropy: Entropy,
        directory: Path,
    ) -> "Console":
        """Return the console of a server with the operator interface `table`."""
        site = PageRenderer(
            desk, InProcessClient(table, context), TemplateRenderer(clock, entropy), about, Feed(database)
        )
        rooms = (
            TodayPage(site, clock),
            DevicesPage(site),
            DevicePage(site, clock),
            BulkActionPages(site),
            RefusalsPages(site),
            ApprovalsPage(site),
            AuditPage(site),
            AlertsPage(site),
            PeoplePages(site),
            MePage(site),
            SettingsPage(site),
            CertificatesPage(site, clock),
            RolloverPage(site),
            AuthoritiesPage(site, clock),
            AwsTemplatesPage(site),
            JobsPages(site),
            RulesPages(site),
            ConfigurationsPages(site),
            CertificatePage(site, clock),
            enroll_page(site, directory, clock),
            LiveUpdates(site, counted),
        )
        return cls(site, [route for room in rooms for route in room.routes()])

    def routes(self) -> list[BaseRoute]:
        """Return every route."""
        language = self.site.route("/language", self.speak, "POST")
        return [*self.pages, language, file_route()]

    async def return_not_found(self, request: Request, _error: Exception) -> Response:
        """Return 404 for an unknown path: a page for signed-in browsers, plain text for programs."""
        is_page = request.method == "GET" and "text/html" in request.headers.get("accept", "")
        if not is_page or not self.site.desk.gate.is_signed_in(request):
            headers = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
            return Response("Not Found", 404, headers, "text/plain")

        async def missing(_request: Request, _who: SignedInUser) -> Response:
            raise PageMissingError(path=printable(request.url.path)[:_MAX_SHOWN])

        return await self.site.respond(request, missing)

    async def speak(self, request: Request, _who: SignedInUser) -> Response:
        """Set the language of the pages."""
        given = await self.site.form(request)
        response = self.site.go(local_path(given.get("next")))
        if (chosen := given.get("language", "")) in LANGUAGES:
            gate = self.site.desk.gate
            gate.keep(response, LANGUAGE_COOKIE, chosen, _YEAR_S)
        return response
