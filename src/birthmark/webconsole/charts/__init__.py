"""SVG charts of values: counts per period (`bars`), and values per hour (`lines`).

- In: values, and every displayed text: the console supports several languages, this module none.
- Out: SVG with an axis, its unit and a zero line; an incomplete interval is drawn as such.
"""

from birthmark.webconsole.charts.axes import Tick, midnights, months, round_ticks
from birthmark.webconsole.charts.bars import Bar, BarKind, bars, standouts
from birthmark.webconsole.charts.line_strips import Series, lines

__all__ = ["Bar", "BarKind", "Series", "Tick", "bars", "lines", "midnights", "months", "round_ticks", "standouts"]
