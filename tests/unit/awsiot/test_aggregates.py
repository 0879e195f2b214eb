"""Statistics of what devices report, who may report any number there is."""

import json

from hypothesis import given
from hypothesis import strategies as st

from birthmark.awsiot.rules.index_aggregations import percentiles, statistics


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=8))
def test_statistics_of_any_numbers_are_numbers(numbers: list[float]) -> None:
    values = [repr(number) for number in [1e300, -1e300, 1.7e308, *numbers]]
    assert json.dumps(statistics(values), allow_nan=False)
    assert json.dumps(percentiles(values, [0.0, 33.3, 50.0, 100.0]), allow_nan=False)
