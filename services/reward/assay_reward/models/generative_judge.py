"""Generative judges: a language model behind an OpenAI-compatible endpoint says which answer is better, or how good one is.

Pairwise, every two different answers to the same conversation within a request are shown in both orders, since judges favour a
place; an answer's score is the share of comparisons it wins, ties counted half. Pointwise, it is a rating.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import grpc
from pydantic import Field, field_validator

from assay_data.conversations import Message
from assay_data.fingerprints import Fingerprint, fingerprint_of
from assay_kit.errors import AssayError, FailedPrecondition, InvalidArgument
from assay_reward import metrics
from assay_reward.inputs import ScoreInput, TextAnswer, Truncation
from assay_reward.models import judge_texts
from assay_reward.models.asking import ask_all
from assay_reward.models.base import Computed, LoadOptions, MemberScore, ModelKind, Prepared, Rendered, no_weights
from assay_reward.models.declarations import ApiKeyVariable, Declaration, digest_of, read_api_key, read_declaration
from assay_reward.models.judge_endpoint import JudgeEndpoint, JudgeSession, QuestionRefused

MARKER = "generative_judge.json"
EXAMPLE = '{"base_url": "http://host:8000/v1", "model": "org/judge", "mode": "pairwise", "temperature": 0, "max_tokens": 512}'
MAX_COMPARED = 32
"""Most different answers to one conversation: the comparisons grow with their square."""


class JudgeDeclaration(Declaration):
    """What `generative_judge.json` holds."""

    base_url: Annotated[str, Field(min_length=1)]
    """Of the API, for example "https://host/v1"; a host alone means its /v1."""
    model: Annotated[str, Field(min_length=1)]
    """As the endpoint names it."""
    mode: Literal["pairwise", "pointwise"]
    api_key_env: ApiKeyVariable | None = None
    """Environment variable of the service that holds the key."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    max_tokens: Annotated[int, Field(ge=1)] = 512
    """Longest answer of the judge."""
    instructions: Annotated[str, Field(min_length=1)] = judge_texts.CRITERION
    """What makes an answer good."""

    @field_validator("base_url")
    @classmethod
    def _is_http(cls, base_url: str) -> str:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.username:
            raise ValueError("http://host or https://host is wanted, with a port and the path of the API where it has them")
        return base_url.rstrip("/") if parts.path.strip("/") else f"{base_url.rstrip('/')}/v1"


class UnclearAnswer(AssayError):
    """The judge was asked twice and gave no verdict that could be read."""

    code = grpc.StatusCode.INTERNAL


@dataclass(frozen=True, kw_only=True)
class Judged(Prepared):
    """An answer, its text in `text`, with the conversation it is to."""

    context: tuple[Message, ...]


class _Judge:
    """What both modes share. A judge has no tokens: its counts of them are 0, and its type of weights is not known."""

    kind = "generative_judge"
    dtype = ""
    max_input_tokens = 0

    def __init__(self, declared: JudgeDeclaration, endpoint: JudgeEndpoint) -> None:
        self.architecture = f"{declared.model} ({declared.mode})"
        self._declared = declared
        self._endpoint = endpoint

    def prepare(self, inputs: Sequence[ScoreInput], truncation: Truncation) -> list[Prepared | AssayError]:
        """Takes text as it is."""
        return [self._prepared(item) for item in inputs]

    def _prepared(self, item: ScoreInput) -> Judged | AssayError:
        if not isinstance(item, TextAnswer) or not item.context:
            return InvalidArgument(
                item.field, "a judge reads an answer with what it answers; a conversation is wanted, and the answer as text"
            )
        return Judged(context=item.context, text=item.text, prompt_tokens=0, response_tokens=0)

    def _rendered(self, messages: Sequence[Message]) -> Rendered:
        return Rendered(text="\n\n".join(f"[{message.role}]\n{message.content}" for message in messages))


class PairwiseJudge(_Judge):
    """Holds the answers to a conversation against each other."""

    def prepare(self, inputs: Sequence[ScoreInput], truncation: Truncation) -> list[Prepared | AssayError]:
        """Takes text as it is; an answer alone, or among too many, has its error."""
        prepared = super().prepare(inputs, truncation)
        answers: dict[tuple[Message, ...], set[str]] = {}
        for one in prepared:
            if isinstance(one, Judged):
                answers.setdefault(one.context, set()).add(one.text)
        return [
            self._comparable(item, one, len(answers[one.context])) if isinstance(one, Judged) else one
            for item, one in zip(inputs, prepared, strict=True)
        ]

    def render(self, conversation: tuple[Message, ...], truncation: Truncation) -> Rendered:
        """The question, with the last turn as the first answer and room for another."""
        context, answer = _last_answer(conversation)
        return self._rendered(judge_texts.pairwise_messages(context, answer, "", self._declared.instructions))

    async def ask(self, prepared: Sequence[Prepared]) -> Computed:
        """The share of comparisons that each wins, 0..1; by place and in how many the order decided, as members."""
        answers = [item for item in prepared if isinstance(item, Judged)]
        pairs = [
            (first, second)
            for first, one in enumerate(answers)
            for second, other in enumerate(answers)
            if first != second and one.context == other.context
        ]
        async with self._endpoint.open() as session:
            outcomes = await ask_all([self._verdict(session, answers[first], answers[second]) for first, second in pairs])
        verdicts = dict(zip(pairs, outcomes, strict=True))
        results = [self._result(index, verdicts) for index in range(len(answers))]
        self._count(verdicts)
        return Computed(
            raw=tuple(raw for raw, _, _ in results),
            computed_tokens=0,
            padded_tokens=0,
            members=tuple(members for _, members, _ in results),
            errors=tuple(error for _, _, error in results),
        )

    async def _verdict(self, session: JudgeSession, first: Judged, second: Judged) -> float | AssayError:
        messages = judge_texts.pairwise_messages(first.context, first.text, second.text, self._declared.instructions)
        try:
            for _ in range(2):
                reply = await session.ask(messages, log_probs=False)
                verdict = judge_texts.verdict_of(reply.text)
                if verdict is not None:
                    return verdict
                messages = [*messages, Message("assistant", reply.text), Message("user", judge_texts.PAIRWISE_REMINDER)]
        except QuestionRefused as error:
            return error
        return _unclear(reply.text, "[[A]], [[B]] or [[C]]")

    def _result(
        self, index: int, verdicts: dict[tuple[int, int], float | AssayError]
    ) -> tuple[float, tuple[MemberScore, ...], AssayError | None]:
        shown_first: list[float] = []
        shown_second: list[float] = []
        for (first, second), verdict in verdicts.items():
            if index not in (first, second):
                continue
            if isinstance(verdict, AssayError):
                return float("nan"), (), verdict
            if index == first:
                shown_first.append(verdict)
            else:
                shown_second.append(1.0 - verdict)
        # Both lists are by the other answer's index, so their places agree.
        swayed = [float(one != other) for one, other in zip(shown_first, shown_second, strict=True)]
        members = (
            MemberScore(name="shown_first", raw=_mean(shown_first)),
            MemberScore(name="shown_second", raw=_mean(shown_second)),
            MemberScore(name="order_disagreement", raw=_mean(swayed)),
        )
        return _mean([*shown_first, *shown_second]), members, None

    def _count(self, verdicts: dict[tuple[int, int], float | AssayError]) -> None:
        for (first, second), verdict in verdicts.items():
            other = verdicts[second, first]
            if first < second and isinstance(verdict, float) and isinstance(other, float):
                outcome = "agreed" if verdict == 1.0 - other else "disagreed"
                metrics.JUDGE_ORDERS.labels(self._declared.model, outcome).inc()

    def _comparable(self, item: ScoreInput, prepared: Judged, answers: int) -> Prepared | AssayError:
        if answers < 2:
            return FailedPrecondition(
                "a pairwise judge holds answers to the same conversation against each other, and here is one alone; score at least two "
                "different ones in one request, or declare the judge with mode pointwise"
            )
        if answers > MAX_COMPARED:
            return InvalidArgument(
                item.field, f"is one of {answers} different answers to a conversation; a pairwise judge compares at most {MAX_COMPARED}"
            )
        return prepared


class PointwiseJudge(_Judge):
    """Rates each answer by itself."""

    def render(self, conversation: tuple[Message, ...], truncation: Truncation) -> Rendered:
        """The question."""
        context, answer = _last_answer(conversation)
        return self._rendered(judge_texts.pointwise_messages(context, answer, self._declared.instructions))

    async def ask(self, prepared: Sequence[Prepared]) -> Computed:
        """The rating of each, 1..10: its expectation where the endpoint gives log-probabilities, else the number it says."""
        async with self._endpoint.open() as session:
            outcomes = await ask_all([self._rating(session, item) for item in prepared if isinstance(item, Judged)])
        return Computed(
            raw=tuple(float("nan") if isinstance(outcome, AssayError) else outcome for outcome in outcomes),
            computed_tokens=0,
            padded_tokens=0,
            errors=tuple(outcome if isinstance(outcome, AssayError) else None for outcome in outcomes),
        )

    async def _rating(self, session: JudgeSession, answer: Judged) -> float | AssayError:
        messages = judge_texts.pointwise_messages(answer.context, answer.text, self._declared.instructions)
        try:
            for _ in range(2):
                reply = await session.ask(messages, log_probs=True)
                rating = judge_texts.rating_of(reply.text)
                if rating is not None:
                    expected = judge_texts.expected_rating(reply.tokens)
                    return float(rating) if expected is None else expected
                messages = [*messages, Message("assistant", reply.text), Message("user", judge_texts.POINTWISE_REMINDER)]
        except QuestionRefused as error:
            return error
        return _unclear(reply.text, "a whole number from 1 to 10")


def _last_answer(conversation: tuple[Message, ...]) -> tuple[tuple[Message, ...], str]:
    last = len(conversation) - 1
    if conversation[last].role != "assistant":
        raise InvalidArgument(f"messages[{last}].role", "a judge reads an answer; the last turn must be the assistant's")
    return conversation[:-1], conversation[last].content


def _unclear(said: str, wanted: str) -> UnclearAnswer:
    return UnclearAnswer(f"the judge was asked twice and said no single verdict, {wanted}; its last words were {said[-200:]!r}")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _load(folder: Path, options: LoadOptions) -> PairwiseJudge | PointwiseJudge:
    """The judge that is declared. The endpoint is not asked: it may come and go, and a model that is loaded stays."""
    declared = read_declaration(folder / MARKER, JudgeDeclaration, EXAMPLE)
    endpoint = JudgeEndpoint(
        base_url=declared.base_url,
        model=declared.model,
        api_key=read_api_key(declared.api_key_env, folder / MARKER),
        temperature=declared.temperature,
        max_tokens=declared.max_tokens,
        concurrency=options.judge_concurrency,
        timeout_seconds=options.judge_timeout_seconds,
    )
    return PairwiseJudge(declared, endpoint) if declared.mode == "pairwise" else PointwiseJudge(declared, endpoint)


def _fingerprint(folder: Path, options: LoadOptions) -> Fingerprint:
    """Of what is declared, the key's variable apart, and of what a judge is asked; the endpoint's own weights are not known here."""
    declared = read_declaration(folder / MARKER, JudgeDeclaration, EXAMPLE).model_dump(exclude={"api_key_env"})
    asked = [judge_texts.GUARD, judge_texts.PAIRWISE, judge_texts.POINTWISE, judge_texts.PAIRWISE_REMINDER, judge_texts.POINTWISE_REMINDER]
    return fingerprint_of(
        weights_sha256=digest_of({"kind": _Judge.kind, **declared}), tokenizer_sha256=digest_of([]), chat_template_sha256=digest_of(asked)
    )


KIND = ModelKind(name=_Judge.kind, marker=MARKER, load=_load, fingerprint=_fingerprint, weight_bytes=no_weights)
