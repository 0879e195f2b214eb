"""Charts as SVG, drawn from values: how many in each period (`bars`), and how that went by the hour (`lines`).

In:   values, and every word that is shown: the console speaks several languages, this module none.
Out:  SVG with an axis, its unit and a zero line; an interval that is not over is drawn as such.
"""

from birthmark.webconsole.charts.axes import Tick, midnights, months, round_ticks
from birthmark.webconsole.charts.bars import Bar, BarKind, bars, standouts
from birthmark.webconsole.charts.lines import Series, lines

__all__ = ["Bar", "BarKind", "Series", "Tick", "bars", "lines", "midnights", "months", "round_ticks", "standouts"]
