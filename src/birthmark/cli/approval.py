"""`birthmark approval`: operations that need a second user's approval."""

from typing import Annotated

import typer

from birthmark.cli.options.server import ListOptions, ServerOutputOptions

ApprovalArgument = Annotated[str, typer.Argument(metavar="ID", help="Approval, as listed by `birthmark approval ls`.")]


def list_approvals(server: ListOptions) -> None:
    """List pending approvals.

    Lists your own requests and those that you can approve.
    """
    columns = ("id", "asked_by", "what", "request", "body", "needs", "ends")
    server.show("people", "approvals", columns=columns, nothing="No pending approvals.")


def approve(server: ServerOutputOptions, name: ApprovalArgument) -> None:
    """Approve another user's request once.

    Check it first with `birthmark approval ls`.
    """
    server.do("people", "approvals", name, "approve")


def reject(server: ServerOutputOptions, name: ApprovalArgument) -> None:
    """Reject another user's request.

    The requester is notified when they retry.
    """
    server.do("people", "approvals", name, "reject")
