"""A device's life on one line of time: lanes of points and spans as SVG (`life`), and the same as rows (`rows`).

In:   lanes, the time, and every word that is shown.
Out:  SVG of a size that a page can bear, however many certificates there were: what would lie upon each other is drawn
      as one mark that says how many it is. The rows leave nothing out.
"""

from birthmark.webconsole.life.model import Item, Point, TimelineLane, TimelineRow, TimelineSpan, TimelineTexts, rows
from birthmark.webconsole.life.rendering import life
from birthmark.webconsole.life.time_axis import Unit

__all__ = ["Item", "Point", "TimelineLane", "TimelineRow", "TimelineSpan", "TimelineTexts", "Unit", "life", "rows"]
