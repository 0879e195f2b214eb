"""How long a caller is told to wait."""

import pytest

from birthmark.est.rules.caller_rate_limit import EstThrottledError, Limiter


def test_who_waits_as_long_as_told_is_let_through() -> None:
    limiter = Limiter(burst=1, every_s=6.0)
    limiter.take("device-1", 0.0)
    with pytest.raises(EstThrottledError) as refusal:
        limiter.take("device-1", 3.6)
    assert refusal.value.retry_after_s == 3
    assert refusal.value.explain_fix().startswith("Wait 3 s,")
    limiter.take("device-1", 3.6 + refusal.value.retry_after_s)
