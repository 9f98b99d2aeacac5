"""From a request's options to a labeller, for every door."""

from __future__ import annotations

from assay.cleaning.v1 import cleaning_pb2
from assay_cleaning.committees import CommitteeCache
from assay_cleaning.labelling import Labeller
from assay_cleaning.wire import options_from_proto
from assay_data.errors import DataError
from assay_kit.errors import InvalidArgument


class Labellers:
    """Makes labellers from options; committees are read once. Safe to share between threads."""

    def __init__(self, *, min_flip_confidence: float, committees: CommitteeCache | None = None) -> None:
        """Takes the service's default confidence."""
        self.min_flip_confidence = min_flip_confidence
        self.committees = committees or CommitteeCache()

    def labeller(self, options: cleaning_pb2.CleaningOptions) -> Labeller:
        """The labeller that the options ask for.

        Raises:
            InvalidArgument: names the option that is wrong.
        """
        wanted = options_from_proto(options, min_flip_confidence=self.min_flip_confidence)
        if not wanted.committee_uri:
            return Labeller(wanted)
        try:
            return Labeller(wanted, self.committees.get(wanted.committee_uri))
        except DataError as error:
            raise InvalidArgument("options.committee_uri", str(error)) from error
