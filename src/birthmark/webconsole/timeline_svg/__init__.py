"""Timeline of a device: lanes of points and spans as SVG (`timeline_svg`), and the same as table rows (`rows`).

In:   lanes, the current time, and every displayed text.
Out:  SVG of limited size for any number of certificates: overlapping items are drawn as one mark with their number. The
      rows are complete.
"""

from birthmark.webconsole.timeline_svg.time_axis import Unit
from birthmark.webconsole.timeline_svg.timeline_items_and_table_rows import (
    Item,
    Point,
    TimelineLane,
    TimelineRow,
    TimelineSpan,
    TimelineTexts,
    rows,
)
from birthmark.webconsole.timeline_svg.timeline_renderer import timeline_svg

__all__ = [
    "Item",
    "Point",
    "TimelineLane",
    "TimelineRow",
    "TimelineSpan",
    "TimelineTexts",
    "Unit",
    "rows",
    "timeline_svg",
]
