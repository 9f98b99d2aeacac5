"""The Kafka door: assay.preferences.raw.v1 in, .labelled.v1 and .clean.v1 out, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf import json_format

from assay.cleaning.v1 import cleaning_pb2
from assay_cleaning.labelling import Labeller, PairError
from assay_cleaning.metrics import count
from assay_cleaning.requests import Labellers
from assay_cleaning.wire import pair_from_proto, verdict_to_proto
from assay_data.conversations import prompt_key
from assay_data.wire import to_proto
from assay_kit.errors import InvalidArgument
from assay_kit.groups import CLEANING
from assay_kit.kafka import KafkaConnection, Output, Record, Rejected, TransactionalWorker
from assay_kit.topics import PREFERENCES_CLEAN, PREFERENCES_LABELLED, PREFERENCES_RAW

OPTIONS_HEADER = "assay-cleaning-options"
"""Header that says how to clean a pair: CleaningOptions as protobuf JSON. Without it: the defaults, and no committee."""

RUN_HEADER = "assay-run"
"""Header that a sender may set to know its own pairs again; it is handed on with the answers."""

GROUP = CLEANING.name


class CleaningWorker(TransactionalWorker):
    """Labels what comes in. A pair that cannot be labelled goes to the dead letters with the reason."""

    def __init__(self, connection: KafkaConnection, labellers: Labellers, *, max_batch: int = 64) -> None:
        """Takes the parts."""
        self._labellers = labellers
        super().__init__(connection, service="cleaning", group=GROUP, topics=[PREFERENCES_RAW], handle=self.answers, max_batch=max_batch)

    def answers(self, records: Sequence[Record]) -> Sequence[Sequence[Output] | Rejected]:
        """One answer a record."""
        labellers: dict[str, Labeller | Rejected] = {}
        answers: list[Sequence[Output] | Rejected] = []
        for record in records:
            header = record.headers.get(OPTIONS_HEADER, "")
            if header not in labellers:
                labellers[header] = self._labeller(header)
            labeller = labellers[header]
            answers.append(labeller if isinstance(labeller, Rejected) else _answer(labeller, record))
        return answers

    def _labeller(self, header: str) -> Labeller | Rejected:
        try:
            return self._labellers.labeller(json_format.Parse(header or "{}", cleaning_pb2.CleaningOptions()))
        except json_format.ParseError as error:
            return Rejected(f"header {OPTIONS_HEADER}: not CleaningOptions as protobuf JSON: {error}")
        except InvalidArgument as error:
            return Rejected(f"header {OPTIONS_HEADER}: {error.message}")


def _answer(labeller: Labeller, record: Record) -> Sequence[Output] | Rejected:
    try:
        verdict = labeller.label(pair_from_proto(record.message))
    except PairError as error:
        return Rejected(str(error))
    except InvalidArgument as error:
        return Rejected(error.message)
    count(verdict, "kafka")
    key = prompt_key(verdict.pair)
    headers = {RUN_HEADER: record.headers[RUN_HEADER]} if RUN_HEADER in record.headers else {}
    outputs = [Output(PREFERENCES_LABELLED, key, verdict_to_proto(verdict), headers)]
    clean = verdict.clean_pair()
    if clean is not None:
        outputs.append(Output(PREFERENCES_CLEAN, prompt_key(clean), to_proto(clean), headers))
    return outputs
