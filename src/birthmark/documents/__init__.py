"""State documents: what is desired of a device and what it reports, merged, compared and dated; pure values.

A twin and a shadow are views of the same thing: sections of JSON objects that are changed by merging, each value with
the time and the version of its last change. What a cloud allows in one is a `Shape`; what is wrong with a document is
said as a `DocumentProblem`, which the cloud puts into its own words.
"""

from birthmark.documents.sections import DocumentSection, delta, merged, replaced, submitted
from birthmark.documents.validation import DocumentProblem, Problem, Shape, check

__all__ = [
    "DocumentProblem",
    "DocumentSection",
    "Problem",
    "Shape",
    "check",
    "delta",
    "merged",
    "replaced",
    "submitted",
]
