"""The noise detectors, one file per family.

To add one: write a function ``Reading -> Finding | None`` in the file of its family (or a new one), wrap it in a `Detector` with
a name, a threshold and a version, and put that into the family's tuple. A new family's tuple goes into `DETECTORS`. That is all:
all doors, the policy id, ListDetectors and the reports take it from there. A change of what a detector does raises its version.
"""

from assay_cleaning.detectors.base import Detector, Finding, Reading
from assay_cleaning.detectors.empty import EMPTY
from assay_cleaning.detectors.repetitive import REPETITIVE
from assay_cleaning.detectors.toxic import TOXIC
from assay_cleaning.detectors.vague import VAGUE

DETECTORS: tuple[Detector, ...] = (*EMPTY, *REPETITIVE, *TOXIC, *VAGUE)
"""All detectors that look at a pair alone, in the order they are asked; of two families that speak, the first has the word."""

__all__ = ["DETECTORS", "Detector", "Finding", "Reading"]
