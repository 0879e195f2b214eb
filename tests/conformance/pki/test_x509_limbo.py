"""x509-limbo (C2SP), where BIRTHMARK_LIMBO names its limbo.json. What differs is listed, with its reason.

The suite is not ours to carry; its own command line compiles the file.
"""

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from birthmark.errors import BirthmarkError
from birthmark.pki.certificates import parse_pem
from birthmark.pki.extension_parser import CLIENT_AUTH, SERVER_AUTH
from birthmark.pki.hostname_verification import check_host
from birthmark.pki.path_validation import build_chain
from support.fakes import NOON
from support.pki.crl_reader import check_crls, parse_crl

SUITE = os.environ.get("BIRTHMARK_LIMBO")
IN_SCOPE = {"rfc5280", "pathlen", "pathological", "crl", "cve"}
PURPOSES = {"clientAuth": CLIENT_AUTH, "serverAuth": SERVER_AUTH}
# docs/adr/0011: why each of these is so.
ACCEPTED = {"rfc5280::aki::leaf-missing-aki", "rfc5280::root-non-critical-basic-constraints"}
REFUSED = {"cve::cve-2024-0567"}


def verdict(case: dict[str, Any]) -> str:
    at = case["validation_time"]
    now = NOON if at is None else datetime.fromisoformat(at)
    try:
        anchors = [parse_pem(pem) for pem in case["trusted_certs"]]
        bag = [parse_pem(pem) for pem in case["untrusted_intermediates"]]
        wanted = next((PURPOSES[name] for name in case["extended_key_usage"] if name in PURPOSES), None)
        chain = build_chain(
            parse_pem(case["peer_certificate"]),
            bag,
            anchors,
            now,
            allow_partial=True,
            purpose=wanted,
            max_intermediates=case["max_chain_depth"],
        )
        name = case["expected_peer_name"]
        if name is not None and name["kind"] in {"DNS", "IP"}:
            check_host(chain[0], name["value"])
        check_crls(chain, [parse_crl(pem.encode()) for pem in case["crls"]], now)
    except BirthmarkError:
        return "FAILURE"
    return "SUCCESS"


@pytest.mark.skipif(SUITE is None, reason="BIRTHMARK_LIMBO names no limbo.json")
def test_every_case_in_scope_but_those_listed_gets_the_suite_s_verdict() -> None:
    cases = json.loads(Path(SUITE or "").read_text())["testcases"]
    in_scope = [case for case in cases if case["id"].partition("::")[0] in IN_SCOPE]
    wrong = {case["id"]: verdict(case) for case in in_scope if verdict(case) != case["expected_result"]}
    assert {name for name, found in wrong.items() if found == "SUCCESS"} == ACCEPTED
    assert {name for name, found in wrong.items() if found == "FAILURE"} == REFUSED
