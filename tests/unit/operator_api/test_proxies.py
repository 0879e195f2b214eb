"""Past which proxies a cloud of a test is reached."""

import pytest

from birthmark.operator_api.client.vendor_tool_environment import proxy_bypass_variables

HOST = "127.16.0.1"


@pytest.mark.parametrize(
    ("environment", "bypass"),
    [
        ({}, None),
        ({"no_proxy": "localhost"}, None),
        ({"https_proxy": "http://proxy:3128"}, HOST),
        ({"ALL_PROXY": "http://proxy:3128", "NO_PROXY": "localhost, .example"}, f"localhost,.example,{HOST}"),
        ({"http_proxy": "http://proxy:3128", "no_proxy": f"{HOST},localhost"}, f"{HOST},localhost"),
        ({"http_proxy": "http://proxy:3128", "no_proxy": "*"}, None),
    ],
)
def test_it_is_named_beside_what_is_named_already(environment: dict[str, str], bypass: str | None) -> None:
    wanted = {} if bypass is None else {"no_proxy": bypass, "NO_PROXY": bypass}
    assert proxy_bypass_variables(HOST, environment) == wanted
