"""What both doors do with a request to score: check it, begin it, and make the reply of what came out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from assay.common.v1 import common_pb2
from assay.reward.v1 import reward_pb2
from assay_kit.errors import AssayError, InvalidArgument, ResourceExhausted, item_error
from assay_reward import metrics
from assay_reward.admission import Demand
from assay_reward.cards import QualityCards
from assay_reward.drift import DriftMonitor
from assay_reward.engine import Cost, Route, Scored, ScoreNotFinite, Work, device_route
from assay_reward.fair_queue import NO_DEADLINE, Standing
from assay_reward.inputs import Scale, ScoreInput, ScoreOptions
from assay_reward.loaded import Lease, LoadedModel
from assay_reward.parts import text_bytes
from assay_reward.remote import RemoteWork
from assay_reward.replies import provenance_message, score_message, usage_message
from assay_reward.requests import MAX_ITEMS, Violations, batch_inputs, group_inputs, options_of
from assay_reward.result_cache import ResultCache
from assay_reward.scales import check_scale
from assay_reward.scheduler import Scheduler
from assay_reward.shadow import Shadows
from assay_reward.store import ModelStore
from assay_reward.tokenizing import Tokenizing

Reply = TypeVar("Reply")


class Call(Generic[Reply]):
    """A request that has been checked.

    `admit` finds it room, `begin` sends it on its way, `reply` gives the answer once the work is done; `close` must follow,
    whatever happened.
    """

    def __init__(
        self, lease: Lease, route: Callable[[float], Route], work: Callable[[Route], Work], answer: Callable[[Work], Reply]
    ) -> None:
        self._lease = lease
        self._find_route = route
        self._route: Route | None = None
        self._work = work
        self._answer = answer

    def admit(self, *, wait_seconds: float = 0.0) -> None:
        """Finds room in the queue; blocks for at most `wait_seconds`.

        Raises:
            AssayError: there is none, or the deadline cannot be met.
        """
        self._route = self._find_route(wait_seconds)

    def begin(self) -> Work:
        """Sends it to the tokenizer and on to the device; returns at once. It must have been admitted."""
        if self._route is None:
            raise RuntimeError("a call was begun that has no room")
        return self._work(self._route).begin()

    def reply(self, work: Work) -> Reply:
        """The answer; waits for it."""
        return self._answer(work)

    def close(self) -> None:
        """Gives back the model, and room that was not used."""
        if self._route is not None:
            self._route.close()
        self._lease.release()


class Scoring:
    """The models, the cards and the device, put to use."""

    def __init__(
        self,
        *,
        store: ModelStore,
        cards: QualityCards,
        scheduler: Scheduler,
        tokenizing: Tokenizing,
        remote: RemoteWork,
        drift: DriftMonitor,
        cache: ResultCache,
        shadows: Shadows,
        max_candidates: int,
        max_text_bytes: int,
    ) -> None:
        self._store = store
        self._cards = cards
        self._drift = drift
        self._cache = cache
        self._shadows = shadows
        self._scheduler = scheduler
        self._tokenizing = tokenizing
        self._remote = remote
        self.max_candidates = min(max_candidates, scheduler.limits.candidates)
        self.max_text_bytes = max_text_bytes

    def group(
        self, request: reward_pb2.ScoreGroupRequest, *, door: str, caller: str, deadline: float = NO_DEADLINE
    ) -> Call[reward_pb2.ScoreGroupResponse]:
        """Checks a group.

        Args:
            request: the group.
            door: "grpc" or "kafka", for the metrics.
            caller: whose it is; callers share the device.
            deadline: on the clock of `time.monotonic`.

        Raises:
            AssayError: of the kind that the contract names.
        """
        found = Violations()
        options = options_of(request.options, found)
        inputs = group_inputs(request, max_candidates=self.max_candidates, max_bytes=self.max_text_bytes, found=found)
        found.check()
        lease, card = self._leased(request.model, options.scale)

        def answer(work: Work) -> reward_pb2.ScoreGroupResponse:
            results, cost = work.results()
            scored = _all_scored(inputs, results, lease.loaded.name)
            self._count(lease.loaded, door, scored, cost)
            self._shadows.offer(lease.loaded, inputs, scored, options)
            scores = [score_message(item.id, result, options.scale, card) for item, result in zip(inputs, scored, strict=True)]
            return reward_pb2.ScoreGroupResponse(
                scores=scores,
                best_index=max(range(len(scored)), key=lambda index: (scored[index].raw, -index)),
                provenance=provenance_message(lease.loaded, card),
                usage=usage_message(cost),
                request_id=request.request_id,
            )

        return self._call(lease, inputs, options, caller, deadline, answer)

    def batch(
        self, request: reward_pb2.ScoreBatchRequest, *, door: str, caller: str, deadline: float = NO_DEADLINE
    ) -> Call[reward_pb2.ScoreBatchResponse]:
        """Checks a batch; an item that is wrong has its error in the reply. As `group` otherwise."""
        found = Violations()
        options = options_of(request.options, found)
        max_items = min(MAX_ITEMS, self._scheduler.limits.candidates)
        items = batch_inputs(request, max_items=max_items, max_bytes=self.max_text_bytes, found=found)
        found.check()
        lease, card = self._leased(request.model, options.scale)
        inputs = [item for item in items if isinstance(item, ScoreInput)]

        def answer(work: Work) -> reward_pb2.ScoreBatchResponse:
            results, cost = work.results()
            self._count(lease.loaded, door, [result for result in results if isinstance(result, Scored)], cost)
            self._shadows.offer(lease.loaded, inputs, results, options)
            coming = iter(results)
            outcomes = [item if isinstance(item, AssayError) else next(coming) for item in items]
            return reward_pb2.ScoreBatchResponse(
                results=[
                    _result(item.id, f"items[{index}]", outcome, options.scale, card)
                    for index, (item, outcome) in enumerate(zip(request.items, outcomes, strict=True))
                ],
                provenance=provenance_message(lease.loaded, card),
                usage=usage_message(cost),
                request_id=request.request_id,
            )

        return self._call(lease, inputs, options, caller, deadline, answer)

    def beside(
        self, name: str, revision: str, inputs: Sequence[ScoreInput], options: ScoreOptions
    ) -> tuple[LoadedModel, list[Scored | AssayError]]:
        """Scores where no caller waits, and says with what; blocks.

        Raises:
            ResourceExhausted: callers could need the room.
            AssayError: there is no such model, or it cannot score now.
        """
        lease = self._store.lease(name, revision)
        if self._scheduler.held + len(inputs) > self._scheduler.limits.candidates // 2:
            lease.release()
            raise ResourceExhausted("more than half of the queue is in use or asked for; it is left to callers", 1.0)
        call = self._call(lease, inputs, options, "shadow", NO_DEADLINE, lambda work: work.results()[0])
        try:
            call.admit()
            return lease.loaded, call.reply(call.begin())
        finally:
            call.close()

    def _leased(self, selector: common_pb2.ModelSelector, scale: Scale) -> tuple[Lease, common_pb2.QualityCard | None]:
        lease = self._store.lease(selector.name, selector.revision)
        card = self._cards.get(lease.loaded.fingerprint.fingerprint)
        try:
            check_scale(scale, card, lease.loaded.name)
        except AssayError:
            lease.release()
            raise
        return lease, card

    def _call(
        self,
        lease: Lease,
        inputs: Sequence[ScoreInput],
        options: ScoreOptions,
        caller: str,
        deadline: float,
        answer: Callable[[Work], Reply],
    ) -> Call[Reply]:
        loaded = lease.loaded
        standing = Standing(priority=options.priority, caller=caller, deadline=deadline)
        cache = self._cache.of(loaded) if loaded.remote is None else None

        def route(wait_seconds: float) -> Route:
            if loaded.remote is not None:
                room = self._remote.admit(len(inputs), wait_seconds=wait_seconds)
                return self._remote.route(loaded.remote, room, self._tokenizing, deadline=deadline)
            model = loaded.local
            assert model is not None
            demand = Demand(model=model, candidates=len(inputs), text_bytes=text_bytes(inputs), standing=standing)
            ticket = self._scheduler.admit(demand, wait_seconds=wait_seconds)
            return device_route(
                model,
                ticket,
                self._tokenizing,
                batch_tokens=self._scheduler.batch_tokens,
                window_tokens=self._scheduler.window_tokens,
            )

        return Call(lease, route, lambda way: Work(loaded.model, inputs, options.truncation, standing, way, cache), answer)

    def _count(self, loaded: LoadedModel, door: str, scored: Sequence[Scored], cost: Cost) -> None:
        metrics.CANDIDATES.labels(loaded.name, door).inc(len(scored))
        metrics.TRUNCATED.labels(loaded.name).inc(sum(result.prepared.tokens_dropped > 0 for result in scored))
        for kind, tokens in (("useful", cost.useful_tokens), ("computed", cost.computed_tokens), ("padded", cost.padded_tokens)):
            metrics.TOKENS.labels(loaded.name, kind).inc(tokens)
        score = metrics.SCORE.labels(loaded.name, loaded.revision)
        for result in scored:
            score.observe(result.raw)
        self._drift.observe(loaded, scored)


def _all_scored(inputs: Sequence[ScoreInput], results: Sequence[Scored | AssayError], model: str) -> list[Scored]:
    """The scores, or one error that names every candidate that has none."""
    wrong: list[tuple[str, str]] = []
    for item, result in zip(inputs, results, strict=True):
        if isinstance(result, InvalidArgument):
            wrong += [(f"{item.path}.{field}", description) for field, description in result.violations]
        elif isinstance(result, ScoreNotFinite):
            raise ScoreNotFinite(f"model {model}, {item.path}: {result.message}")
        elif isinstance(result, AssayError):
            raise result
    if wrong:
        raise InvalidArgument.many(wrong)
    return [result for result in results if isinstance(result, Scored)]


def _result(
    identity: str, path: str, outcome: Scored | AssayError, scale: Scale, card: common_pb2.QualityCard | None
) -> reward_pb2.ScoreResult:
    if isinstance(outcome, AssayError):
        return reward_pb2.ScoreResult(id=identity, error=item_error(outcome, path))
    return reward_pb2.ScoreResult(id=identity, score=score_message(identity, outcome, scale, card))
