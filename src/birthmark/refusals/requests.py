"""What workers ask each other about refusals."""

from birthmark.bus.ports import Reply, Request


class PresentedThere(Reply, frozen=True, tag="refusals.presented_there"):
    """A certificate in DER, empty where that worker remembers none of that thumbprint."""

    der: bytes


class AskPresented(Request[PresentedThere], frozen=True, tag="refusals.ask_presented"):
    """Say which certificate was presented to you, by its thumbprint."""

    thumbprint: bytes
