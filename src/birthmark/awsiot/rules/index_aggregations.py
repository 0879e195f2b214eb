"""Aggregations of the fleet index: statistics, percentiles and buckets."""

import sys
from collections import Counter
from collections.abc import Sequence

from birthmark.awsiot.wire.index_query import number_of

USUAL_PERCENTS = (1.0, 5.0, 25.0, 50.0, 75.0, 95.0, 99.0)


def statistics(values: Sequence[str]) -> dict[str, float]:
    """Return the GetStatistics result of the numeric values; other values are only counted."""
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
    """Return a sum, limited to the largest finite number: JSON has no infinity."""
    return max(-sys.float_info.max, min(sys.float_info.max, number))


def percentiles(values: Sequence[str], percents: Sequence[float]) -> list[tuple[float, float]]:
    """Return the percentiles of the numeric values, interpolated linearly."""
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


def buckets(values: Sequence[str], limit: int) -> list[tuple[str, int]]:
    """Return the most frequent values with their counts; ties are ordered by name."""
    return sorted(Counter(values).items(), key=lambda one: (-one[1], one[0]))[:limit]
