"""The SASL mechanism TPM, the server's end: proof that a client has the TPM of its enrollment.

| client | server |
|---|---|
| init: `00 SCOPE 00 ID 00 EK` | `00` |
| `00 SRK` | `80+n PIECE`, a piece of the sealed key |
| `00` | `C0+n PIECE`, the last one |
| `00 TOKEN`, signed with the key that the TPM opened | outcome |

The keys are TPM2B_PUBLIC. Clients read two bits of `n`, which counts from 0.

A TPM that is refused, such as one that is not enrolled, still receives a key, and the refusal is the outcome. The SDK
for Node.js waits forever for a challenge if the connection ends before it.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import replace

from birthmark.dps.amqp.messages import DpsAmqpRequestError
from birthmark.dps.model import Claim, TpmKeys
from birthmark.dps.rules.attestation import NoProofError
from birthmark.dps.service.attester import Attester
from birthmark.errors import BirthmarkError
from birthmark.pki.tpm_public_key import parse_tpm_public

PIECE_BYTES = 400
MAX_PIECES = 4
_FIRST = b"\0"
_PIECE, _LAST = 0x80, 0xC0


class TpmExchange:
    """One exchange. It holds a claim and at most `MAX_PIECES` pieces."""

    def __init__(self, attester: Attester, address: str, on_refusal: Callable[[BirthmarkError], object]) -> None:
        """`on_refusal` records the refusal of a TPM, whose exchange continues; `respond` then returns no claim."""
        self._attester = attester
        self._address = address
        self._on_refusal = on_refusal
        self._is_refused = False
        self._claim: Claim | None = None
        self._pieces: deque[bytes] | None = None

    @property
    def registration_id(self) -> str:
        """The claimed registration ID, or an empty text."""
        return "" if self._claim is None else self._claim.registration_id

    def start(self, response: bytes) -> bytes:
        """Return the first challenge for an initial response. Raise `BirthmarkError`."""
        match response.split(b"\0", 3):
            case [b"", scope, registration_id, endorsement]:
                names = scope.decode("utf-8", "replace"), registration_id.decode("utf-8", "replace")
            case _:
                raise DpsAmqpRequestError(detail="the first response of SASL TPM has no scope, registration ID and key")
        keys = TpmKeys(parse_tpm_public(endorsement, "endorsement key"))
        self._claim = Claim(*names, None, (), None, keys, self._address)
        return _FIRST

    async def respond(self, response: bytes) -> bytes | Claim | None:
        """Return the next challenge or, last, the claim with its token; None for a TPM that was refused.

        The token is not yet verified. Raise `BirthmarkError` for an invalid response.
        """
        claim = self._claim
        if claim is None or claim.tpm is None or not response.startswith(b"\0"):
            raise DpsAmqpRequestError(detail="a response of SASL TPM does not begin with a zero byte")
        if self._pieces is None:
            root = parse_tpm_public(response[1:], "storage root key")
            keys = replace(claim.tpm, storage_root=root)
            self._claim = claim = replace(claim, tpm=keys)
            self._pieces = deque(split_key(await self._seal(claim, keys)))
        elif not self._pieces and self._is_refused:
            return None
        elif not self._pieces:
            return replace(claim, token=response[1:].decode("utf-8", "replace"))
        elif response != b"\0":
            raise DpsAmqpRequestError(detail="SASL TPM expects one zero byte after a piece of the key")
        return self._pieces.popleft()

    async def _seal(self, claim: Claim, keys: TpmKeys) -> bytes:
        """Return the sealed key of an enrolled TPM, or a useless one for a TPM that is refused."""
        try:
            return await self._challenge(claim)
        except BirthmarkError as error:
            self._is_refused = True
            self._on_refusal(error)
            return self._attester.tpms.seal_useless_key(keys)

    async def _challenge(self, claim: Claim) -> bytes:
        if (sealed := await self._attester.challenge(claim)) is not None:
            return sealed
        await self._attester.attest(claim)  # tells what the enrollment requires
        raise NoProofError(registration_id=claim.registration_id, presented="a TPM", wanted="another proof")


def split_key(sealed: bytes) -> list[bytes]:
    """Return the challenges that transfer a sealed key."""
    pieces = [sealed[start : start + PIECE_BYTES] for start in range(0, len(sealed), PIECE_BYTES)]
    assert 0 < len(pieces) <= MAX_PIECES  # noqa: S101 - a sealed key of the largest RSA TPM has three
    last = len(pieces) - 1
    return [bytes([(_LAST if n == last else _PIECE) | n]) + piece for n, piece in enumerate(pieces)]
