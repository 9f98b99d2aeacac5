"""From what was read to what is written: parsing, handling, dead letters, traces. Speaks to no broker."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from google.protobuf import timestamp_pb2
from kafka.structs import TopicPartition
from opentelemetry import context as otel_context
from opentelemetry import trace

from assay.common.v1 import common_pb2
from assay_kit.kafka_metrics import DEAD_LETTERS_SENT, RECORDS
from assay_kit.kafka_records import Encoded, MessageTooLarge, Output, Record, Rejected, encode, header_texts, parse, trace_context
from assay_kit.topics import DEAD_LETTERS, Topic

logger = logging.getLogger(__name__)
tracer = trace.get_tracer("assay")

Answer: TypeAlias = Sequence[Output] | Rejected
"""What a record becomes: any number of outputs, or the dead letters."""
Handler: TypeAlias = Callable[[Sequence[Record]], Sequence[Answer]]
"""Maps records to answers, one each, in order. Whatever it raises means that the world failed: the same records come again."""

_LONGEST_REASON = 4_096  # characters


@dataclass
class Batch:
    """Records read at once, of any partitions, in the order of each partition."""

    raw: list[Any]
    refused: dict[int, str] = field(default_factory=dict)
    """Reason by index in `raw`."""
    outputs: dict[int, list[Encoded]] = field(default_factory=dict)
    """What to write by index in `raw`."""
    records: list[tuple[int, Record]] = field(default_factory=list)
    """Index in `raw` and parsed record."""
    spans: list[trace.Span] = field(default_factory=list)

    @classmethod
    def of(cls, polled: Mapping[TopicPartition, Sequence[Any]], topics: Mapping[str, Topic]) -> Batch:
        """Parses what a poll returned; what cannot be parsed is refused."""
        batch = cls(raw=[raw for records in polled.values() for raw in records])
        for index, raw in enumerate(batch.raw):
            try:
                batch.records.append((index, parse(topics[raw.topic], raw)))
            except Rejected as error:
                batch.refused[index] = error.reason
        return batch

    @property
    def offsets(self) -> dict[TopicPartition, int]:
        """The next offset to read after this batch, by partition."""
        return {TopicPartition(raw.topic, raw.partition): raw.offset + 1 for raw in self.raw}

    def answer(self, handle: Handler, *, producer: str) -> None:
        """Calls the handler and encodes its answers.

        Raises:
            Exception: whatever the handler raises; ValueError where it answers not once for each record.
        """
        if not self.records:
            return
        contexts = [self._begin_span(record) for _, record in self.records]
        answers = handle([record for _, record in self.records])
        if len(answers) != len(self.records):
            raise ValueError(f"the handler gave {len(answers)} answers to {len(self.records)} records; it must give one each, in order")
        for (index, _), context, answer in zip(self.records, contexts, answers, strict=True):
            if isinstance(answer, Rejected):
                self.refused[index] = answer.reason
                continue
            try:
                self.outputs[index] = [
                    encode(out.topic, out.key, out.message, producer=producer, headers=out.headers, context=context) for out in answer
                ]
            except MessageTooLarge as error:
                self.refused[index] = f"the answer is too large: {error}"

    def encoded(self, *, group: str, producer: str) -> list[Encoded]:
        """All that is to be written: outputs and dead letters, in the order of the records."""
        encoded: list[Encoded] = []
        for index, raw in enumerate(self.raw):
            if index in self.refused:
                encoded.append(dead_letter(raw, self.refused[index], group=group, producer=producer))
            else:
                encoded.extend(self.outputs.get(index, ()))
        return encoded

    def committed(self) -> None:
        """Counts what became of the records and ends their spans."""
        for index, raw in enumerate(self.raw):
            if index in self.refused:
                DEAD_LETTERS_SENT.labels(raw.topic).inc()
                logger.warning("%s/%d offset %d went to the dead letters: %s", raw.topic, raw.partition, raw.offset, self.refused[index])
        for (topic, outcome), number in Counter(
            (raw.topic, "rejected" if index in self.refused else "processed") for index, raw in enumerate(self.raw)
        ).items():
            RECORDS.labels(topic, outcome).inc(number)
        for span in self.spans:
            span.end()

    def failed(self, error: BaseException) -> None:
        """Counts the records as to be tried again and ends their spans."""
        for topic, number in Counter(raw.topic for raw in self.raw).items():
            RECORDS.labels(topic, "retried").inc(number)
        for span in self.spans:
            span.set_status(trace.Status(trace.StatusCode.ERROR, str(error)))
            span.end()

    def _begin_span(self, record: Record) -> otel_context.Context:
        context = trace_context(record.headers)
        span = tracer.start_span(f"{record.topic} process", context=context, kind=trace.SpanKind.CONSUMER)
        self.spans.append(span)
        return trace.set_span_in_context(span, context)


def dead_letter(raw: Any, reason: str, *, group: str, producer: str) -> Encoded:
    """The letter that keeps a refused record, as it was, with the reason."""
    at = timestamp_pb2.Timestamp()
    at.GetCurrentTime()
    letter = common_pb2.DeadLetter(
        topic=raw.topic,
        partition=raw.partition,
        offset=raw.offset,
        key=raw.key or b"",
        payload=raw.value or b"",
        headers={_valid(name): _valid(text) for name, text in header_texts(raw.headers or []).items()},
        error=reason[:_LONGEST_REASON],
        consumer_group=group,
        refused_at=at,
    )
    return encode(DEAD_LETTERS, raw.key or b"", letter, producer=producer)


def _valid(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
