"""Microchip's manifest signers and the root of its Trust&GO device certificates.

Names, SHA-256 of the certificates, public keys and validity as published by the vendor. The signers are self-signed; an
old manifest stays valid after its signer expired if it was created before.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

from birthmark.manifests.manifest_entry import ManifestSigner, Root


def _signer(name: str, thumbprint: str, point: str, begin: str, end: str) -> ManifestSigner:
    moments = [datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (begin, end)]
    return ManifestSigner(name, bytes.fromhex(thumbprint), bytes.fromhex(point), *moments)


_SIGNERS = (
    _signer(
        "Microchip Log Signer 001",
        "4c4738e924f644317f00ebc1b680986bcdfc55620f7cd57fda34ea35ae23e51e",
        "4bbcfd9c91753bb837492ebbbe82475251e6fcf4e04b91a8be134313229d1894"
        "7371edab2dfc3ba1eb5e8daa98da32aced31776236a5f4215d662e2d3df93065",
        "2019-01-22T00:27:42",
        "2019-07-22T00:27:42",
    ),
    _signer(
        "Microchip Log Signer 002",
        "53d4ca9b0e1fde21b9e8e191f1857f35cc659340e51b41722fd6839707dbbf50",
        "b08bae03e54f739ece7b43f650b64a1c14865c74edf8aafd511327e213500c1b"
        "82b3e307f5e2f467212c833b170652506384a9103a2ad1f7d973294c61ca9820",
        "2019-08-15T19:47:59",
        "2020-08-15T19:47:59",
    ),
    _signer(
        "Microchip Log Signer 003",
        "30c7ca720e3ab2d1a0a3bace2d5ad5dafa3f54a09b7d2117addac35aa60a3188",
        "e7906d0c37451f84b8ca48d650439ab9ad651e695f7ce39f3e7bc7da3a996b9d"
        "21180cb57b8eecf4b930e1a7ab3b7182b50aec44faf6e0234230b94f8ffbab65",
        "2020-08-13T16:44:29",
        "2023-08-13T16:44:29",
    ),
    _signer(
        "Microchip Log Signer 004",
        "d5f961e44082fdd2d198dd407aa1ccf5eb5f38cf5138ebc43845806984173a8f",
        "04f188e7251a2a1398cff9443ea8e6ea33248dbea1820d9df7f6955c3733c4a7"
        "a47743a57eccb434b3ea5703ad91914ee8e5fc2928f5f2da6001ebaf91374d14",
        "2023-07-18T18:37:51",
        "2026-07-18T18:37:51",
    ),
    _signer(
        "Microchip Manifest Signer 005",
        "571d99841117e3afb34f28886045903fa785cc283dd2e8068e1e5ea4604ce0e3",
        "4caf1dd97d79a84655507aa81935d21249a342d06156e9f96885edb20d887c18"
        "8e06836dac627136149a1c5e81fab5ea730cdd66fc0b98dfb33046dc9223e498",
        "2024-03-07T01:32:28",
        "9999-12-31T23:59:59",
    ),
)

MICROCHIP_SIGNERS: Mapping[bytes, ManifestSigner] = {signer.thumbprint: signer for signer in _SIGNERS}

MICROCHIP_ROOTS = (
    Root(
        "Crypto Authentication Root CA 002",
        bytes.fromhex(
            "bd54e66de3875484006b53ae1580d50aa069e78adf5578d85ce2d54dd5b83029"
            "6bffdd6e6f7256fbd99ef1a116b11d33ad49103aa1858739dcfae437e19d634e"
        ),
    ),
)
