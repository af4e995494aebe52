"""The version of the arithmetic: results of one version are never taken for those of another.

The version is part of a run's identity. Whoever changes what a run computes adds a version here,
and says what it changed; records of earlier versions can still be read, and say which made them.
"""

from collections.abc import Mapping

VERSIONS = {
    1: "the first; records that state no version are of it",
    2: "batch norm exact on the CPU (its moments were off by up to a percent); the replaced first "
    "convolution starts with torch's default weights, as published; the cosine counts steps from "
    "1; whole-pixel strokes are the published ones: control points cut to whole pixels, column "
    "first, joined by OpenCV's lines",
}
CURRENT = max(VERSIONS)


def version_of(record: Mapping) -> int:
    """The version that a record was made by."""
    return record.get("arithmetic", 1)
