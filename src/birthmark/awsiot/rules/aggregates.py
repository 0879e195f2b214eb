"""What aggregations tell of the values that things have in a field: API pages of GetStatistics and its neighbours."""

import sys
from collections import Counter
from collections.abc import Sequence

from birthmark.awsiot.wire.search import number_of

USUAL_PERCENTS = (1.0, 5.0, 25.0, 50.0, 75.0, 95.0, 99.0)


def statistics(values: Sequence[str]) -> dict[str, float]:
    """Return what GetStatistics tells of the values that are numbers; of others it counts."""
    numbers = [number for number in map(number_of, values) if number is not None]
    if not numbers:
        return {"count": len(values)}
    count, total = len(numbers), _finite(sum(numbers))
    average = total / count
    variance = _finite(sum((number - average) * (number - average) for number in numbers) / count)
    return {
        "count": len(values),
        "average": average,
        "sum": total,
        "minimum": min(numbers),
        "maximum": max(numbers),
        "sumOfSquares": _finite(sum(number * number for number in numbers)),
        "variance": variance,
        "stdDeviation": variance**0.5,
    }


def _finite(number: float) -> float:
    """Return a sum, or the largest number there is where it is larger: JSON has no infinity."""
    return max(-sys.float_info.max, min(sys.float_info.max, number))


def percentiles(values: Sequence[str], percents: Sequence[float]) -> list[tuple[float, float]]:
    """Return below which value so many percent lie of those that are numbers, between neighbours in proportion."""
    numbers = sorted(number for number in map(number_of, values) if number is not None)
    if not numbers:
        return []
    found = []
    for percent in percents:
        below, part = divmod(percent / 100 * (len(numbers) - 1), 1)
        at = int(below)
        after = numbers[min(at + 1, len(numbers) - 1)]
        found.append((percent, numbers[at] * (1 - part) + after * part))
    return found


def buckets(values: Sequence[str], most: int) -> list[tuple[str, int]]:
    """Return the values that most have, and how many have each; of as many the first by name."""
    return sorted(Counter(values).items(), key=lambda one: (-one[1], one[0]))[:most]
