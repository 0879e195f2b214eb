"""Timeline of a device: lanes of points and spans as SVG (`life`), and the same as table rows (`rows`).

In:   lanes, the current time, and every displayed text.
Out:  SVG of limited size for any number of certificates: overlapping items are drawn as one mark with their number. The
      rows are complete.
"""

from birthmark.webconsole.life.time_axis import Unit
from birthmark.webconsole.life.timeline_items import (
    Item,
    Point,
    TimelineLane,
    TimelineRow,
    TimelineSpan,
    TimelineTexts,
    rows,
)
from birthmark.webconsole.life.timeline_renderer import life

__all__ = ["Item", "Point", "TimelineLane", "TimelineRow", "TimelineSpan", "TimelineTexts", "Unit", "life", "rows"]
