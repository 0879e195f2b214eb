"""*Provisioning templates*: AWS IoT resources for devices that register with a CA or a claim certificate. Read-only."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from birthmark.awsiot.model import TemplateType
from birthmark.operator_api.page_api_client import SignedInUser
from birthmark.webconsole.event_labels import mark_for_translation
from birthmark.webconsole.i18n import translate
from birthmark.webconsole.page_base import PageRenderer

PATH = "/certificates/templates"
KINDS: Mapping[str, str] = {
    TemplateType.FLEET_PROVISIONING.value: mark_for_translation("claim certificate"),
    TemplateType.JITP.value: mark_for_translation("just-in-time with a CA"),
}
_PAGE, _MAX_CHARS = 50, 256


@dataclass(frozen=True, slots=True)
class AwsTemplatesPage:
    """Page of all provisioning templates."""

    site: PageRenderer

    def routes(self) -> list[Route]:
        """Return the route of the page."""
        return [self.site.route(PATH, self.show)]

    async def show(self, request: Request, caller: SignedInUser) -> Response:
        """Render a page of them; without permission, show a notice."""
        after = request.query_params.get("after", "")[:_MAX_CHARS]
        found = await self.site.inside.look(caller, "/aws/templates", limit=_PAGE, after=after or None)
        following = None if found is None or found.next is None else f"{PATH}?{urlencode({'after': found.next})}"
        values = {
            "rows": None if found is None else [{**row, "how": _how(row)} for row in found.items],
            "following": following,
        }
        return await self.site.draw(request, caller, "aws_templates.html", values)


def _how(row: Mapping[str, Any]) -> str:
    kind = row["type"]
    return translate(KINDS[kind])
