"""*Configurations*: configurations and edge deployments of the hubs, their progress and phased rollouts."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from birthmark.iam.missing_right_errors import RightMissingError
from birthmark.operator_api.name_validation import OperatorRequestError
from birthmark.operator_api.page_api_client import SignedInUser
from birthmark.webconsole.event_labels import mark_for_translation
from birthmark.webconsole.i18n import share, translate
from birthmark.webconsole.page_base import PageRenderer

_AT, _ONE = "/configurations", "/configurations/{hub}/{name:path}"
_API = "/hubs/{name}/configurations/{configuration}"
KINDS: Mapping[str, str] = {
    "device": mark_for_translation("devices"),
    "module": mark_for_translation("modules"),
    "deployment": mark_for_translation("edge deployment"),
}
"""Labels of the kinds of configurations."""
DONE: Mapping[str, tuple[str, bool]] = {
    "stop": (mark_for_translation("The rollout is stopped."), True),
    "resume": (mark_for_translation("The rollout continues."), False),
}


@dataclass(frozen=True, slots=True)
class ConfigurationsPages:
    """The list of configurations, and the page of one."""

    site: PageRenderer

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            self.site.route(_AT, self.list),
            self.site.route(_ONE, self.show),
            self.site.route(_ONE, self.do, "POST"),
        ]

    async def list(self, request: Request, caller: SignedInUser) -> Response:
        """Render the configurations of all hubs that the user may read."""
        inside = self.site.inside
        hubs = await inside.look(caller, "/hubs")
        rows: list[dict[str, Any]] | None = None if hubs is None else []
        for hub in () if hubs is None else hubs.items:
            found = await inside.look(caller, "/hubs/{name}/configurations", hub["name"])
            for row in () if found is None else found.items:
                assert rows is not None  # noqa: S101 - there are hubs
                rows.append({**row, "hub": hub["name"], "kind": translate(KINDS[row["kind"]])})
        return await self.site.draw(request, caller, "configurations.html", {"rows": rows})

    async def show(self, request: Request, caller: SignedInUser) -> Response:
        """Render a configuration. Raise `UnknownConfigurationError`."""
        hub, name = request.path_params["hub"], request.path_params["name"]
        row = await self.site.inside.ask(caller, _API, hub, name)
        rollout = row.get("rollout")
        values = {
            "row": row,
            "hub": hub,
            "here": f"{_AT}/{quote(hub, safe='')}/{quote(name, safe='')}",
            "content": json.dumps(row["content"], ensure_ascii=False, indent=2),
            "results": {**row["systemMetrics"]["results"], **row["metrics"]["results"]},
            "queries": {**row["systemMetrics"]["queries"], **row["metrics"]["queries"]},
            "rollout": rollout,
            "share": "" if rollout is None else share(rollout["percents"][rollout["phase"] - 1] / 100),
            "may": self._may(caller, hub, name),
        }
        return await self.site.draw(request, caller, "configuration.html", values)

    async def do(self, request: Request, caller: SignedInUser) -> Response:
        """Stop or resume a rollout."""
        given, hub, name = await self.site.form(request), request.path_params["hub"], request.path_params["name"]
        if (deed := given.get("deed", "")) not in DONE:
            raise OperatorRequestError(detail="nothing is to be done")
        message, is_stopped = DONE[deed]
        await self.site.do(caller, given, "POST", f"{_API}/rollout", hub, name, stopped=is_stopped)
        return self.site.go(f"{_AT}/{quote(hub, safe='')}/{quote(name, safe='')}", message=translate(message))

    def _may(self, caller: SignedInUser, hub: str, name: str) -> bool:
        """Return whether the user may change the rollout."""
        try:
            self.site.inside.may(caller, "POST", f"{_API}/rollout", hub, name)
        except RightMissingError:
            return False
        return True
