"""State documents: desired and reported state of a device, merged, compared and timestamped; pure values.

A device twin and a device shadow are views of the same structure. It has sections of JSON objects that change by
merging, and each value has the time and version of its last change. A `Shape` defines the limits of a cloud. A
`DocumentProblem` describes a violation, which the cloud translates into its own error.
"""

from birthmark.documents.document_limits import DocumentProblem, Problem, Shape, check
from birthmark.documents.versioned_sections import DocumentSection, delta, merged, replaced, submitted

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
