"""What several workers let through together is what one alone would."""

from pathlib import Path

import pytest

from birthmark.est import wire
from birthmark.est.model import EstSettings
from support.pki.est_server import an_est_server
from support.pki.pki_builders import a_csr

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("workers", [1, 2, 3])
async def test_a_password_is_guessed_no_more_often_at_all_workers_together(tmp_path: Path, workers: int) -> None:
    wrong = {"Authorization": wire.render_basic("factory", "wrong")}
    async with an_est_server(tmp_path, EstSettings(workers=workers)) as server:
        answers = [(await server.post("simpleenroll", a_csr(), headers=wrong)).status for _ in range(12)]
        assert answers.count(401) == {1: 10, 2: 5, 3: 4}[workers]
