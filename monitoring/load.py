"""A short real load on all five services, which gives every panel something to show."""

from __future__ import annotations

import json
import math
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from assay.common.v1 import common_pb2
from assay.policy.v1 import policy_pb2
from assay.reward.v1 import reward_pb2, reward_pb2_grpc
from assay.training.v1 import training_pb2
from assay_cli.study_run import with_data
from assay_client.client import AssayClient
from assay_client.errors import AssayClientError, JobFailed
from assay_client.jobs import wait_for_job
from assay_data.bag_of_words import fit_bag_of_words
from assay_data.conversations import PreferencePair
from assay_data.generated import generate_pairs
from assay_data.pairs import write_pairs
from assay_data.wire import to_proto
from assay_kit.kafka import EventProducer, KafkaConnection
from assay_kit.topics import PREFERENCES_RAW

STUDY = Path(__file__).with_name("study.yaml")
HELD_OUT = 200
_CUT = reward_pb2.ScoreOptions(truncation=reward_pb2.TRUNCATION_POLICY_RESPONSE_RIGHT)
QUESTION = [{"role": "user", "content": "How do I bake bread at home?"}]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the services are.

    Attributes:
        endpoints: host:port by service.
        rewards_http: URL of the reward service's HTTP door.
        kafka: host:port of a broker.
        judge: folder of a reward model that asks a chat server.
        folder: for data, models and what the study makes.
    """

    client: AssayClient
    rewards_target: str
    rewards_http: str
    kafka: str
    judge: Path
    folder: Path


class Load:
    """A study in the background, and all other doors meanwhile and after it."""

    def __init__(self, place: Place, *, study: Path = STUDY, pairs: Sequence[PreferencePair] = (), seconds: float = 6.0) -> None:
        """Takes what to load.

        Args:
            place: the services.
            study: its stage `sft` is a policy, and one whose name begins with `rm` a reward model.
            pairs: preference pairs; none: generated ones.
            seconds: how long answers of the study's models are scored after it has ended.
        """
        self._place = place
        self._client = place.client
        self._study = study
        self._pairs = list(pairs) or list(generate_pairs(240, seed=3))
        self._usable = [pair for pair in self._pairs if pair.chosen and pair.rejected and pair.chosen != pair.rejected and _asks(pair)]
        self._seconds = seconds
        self._data = str(place.folder / "pairs.jsonl")

    def run(self) -> None:
        """Loads the services until all has happened once.

        Raises:
            JobFailed: a job of the load failed.
            AssayClientError: a service does not do what it should.
        """
        place = self._place
        place.folder.mkdir(parents=True, exist_ok=True)
        write_pairs(self._data, self._pairs)
        text = with_data(self._study.read_text(encoding="utf-8"), {"uri": self._data}, source=self._study.name)
        study = self._client.evaluation.create_study_job(text, str(place.folder / "study"), job_id="watched")
        self._measure_reward_models()
        ended = threading.Event()
        errors: list[BaseException] = []
        traffic = threading.Thread(target=_kept(self._meanwhile, errors), args=(ended,))
        traffic.start()
        try:
            result = wait_for_job(self._client.jobs("evaluation"), study.id)
        finally:
            ended.set()
            traffic.join()
        if errors:
            raise errors[0]
        self._after(result["artifacts"])

    def _measure_reward_models(self) -> None:
        """Two bags of words: one with a card that takes the traffic, and one without that is its candidate."""
        half = len(self._usable) // 2
        for name, part in (("words", self._usable[:half]), ("candidate", self._usable[half:])):
            folder = self._place.folder / name
            folder.mkdir()
            fit_bag_of_words(part).save(folder)
            self._client.reward.load_model(name, str(folder))
        self._client.reward.set_alias("default", "words")
        self._client.reward.set_shadow("words", "candidate", share=1.0)
        held_out = str(self._place.folder / "held-out.jsonl")
        write_pairs(held_out, self._usable[half : half + HELD_OUT])
        bench = self._client.evaluation.create_benchmark_job(["words"], held_out, output_uri=str(self._place.folder / "bench"))
        wait_for_job(self._client.jobs("evaluation"), bench.id)

    def _meanwhile(self, ended: threading.Event) -> None:
        self._clean()
        self._send_what_cannot_be_labelled()
        turn = 0
        while not ended.wait(0.15):
            turn += 1
            self._score("words", turn, candidates=2 + round(6 * (1 + math.sin(turn / 20))))
            if turn % 5 == 0:
                self._score_by_http("words")
            if turn % 7 == 0:
                self._ask_for_what_is_not_there()
            if turn % 4 == 0:
                start = turn % max(1, len(self._pairs) - 8)
                self._client.cleaning.label_pairs(self._pairs[start : start + 8])

    def _clean(self) -> None:
        folder = self._place.folder
        jobs = self._client.jobs("cleaning")
        committee = self._client.cleaning.create_committee_job(self._data, str(folder / "committee.json.gz"))
        wait_for_job(jobs, committee.id)
        cleaning = self._client.cleaning.create_cleaning_job(self._data, str(folder / "cleaned"))
        wait_for_job(jobs, cleaning.id)

    def _send_what_cannot_be_labelled(self) -> None:
        """Pairs with options that are none, which become dead letters."""
        producer = EventProducer(KafkaConnection(self._place.kafka), "load")
        for pair in self._usable[:3]:
            producer.send(PREFERENCES_RAW, pair.id, to_proto(pair), {"assay-cleaning-options": "none"})
        producer.close()

    def _train_in_vain(self, policy: str) -> None:
        """Asks for a training against a model that nobody measured, which the gate refuses."""
        spec = training_pb2.DpoSpec(model_uri=policy, data_uri=self._data, gate=training_pb2.Gate(reward_model="candidate"))
        jobs = self._client.jobs("training")
        _refused(lambda: wait_for_job(jobs, self._client.training.create_training_job(spec, str(self._place.folder / "never")).id))

    def _after(self, artifacts: dict[str, Any]) -> None:
        """Best-of-n by the study's policy, and scores of its reward model, some of which are given up or come too late."""
        policy = artifacts["sft"]["model"]
        self._train_in_vain(policy)
        self._client.policy.load_model("watched", policy)
        self._client.reward.load_model("judge", str(self._place.judge))
        self._client.reward.load_model("tuned", next(made["model"] for name, made in artifacts.items() if name.startswith("rm")))
        sampling = policy_pb2.SamplingOptions(max_new_tokens=12)
        until = time.monotonic() + self._seconds
        turn = 0
        while turn < 8 or time.monotonic() < until:
            turn += 1
            self._client.policy.best_of_n(QUESTION, n=4, policy="watched", reward_model="words", sampling=sampling)
            self._score("tuned", turn, candidates=16)
            self._score_by_http("tuned")
            self._score("judge", turn, candidates=3)
            self._give_up()

    def _score(self, model: str, turn: int, *, candidates: int) -> None:
        """Scores answers of real pairs, some of them seen before."""
        answers = [pair.chosen if (turn + index) % 2 else pair.rejected for index, pair in enumerate(self._some(turn, candidates))]
        self._client.reward.score_group(QUESTION, [answer or "…" for answer in answers], model=model, options=_CUT)

    def _some(self, turn: int, number: int) -> list[PreferencePair]:
        return [self._usable[(3 * turn + index) % len(self._usable)] for index in range(number)]

    def _score_by_http(self, model: str) -> None:
        body = json.dumps({"query": [f"{QUESTION[0]['content']} Mix flour and water, {number}." for number in range(4)]}).encode()
        request = urllib.request.Request(f"{self._place.rewards_http}/get_reward?model={model}", body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            answer.read()

    def _ask_for_what_is_not_there(self) -> None:
        _refused(lambda: self._client.reward.score_group(QUESTION, ["An answer."], model="no-such-model"))

    def _give_up(self) -> None:
        """Asks for more than there is time for, and hangs up on what it has asked for."""
        long = [f"{number} " + "word " * 200 for number in range(128)]
        request = reward_pb2.ScoreGroupRequest(
            model=common_pb2.ModelSelector(name="tuned"),
            conversation=common_pb2.Conversation(messages=[common_pb2.Message(role=common_pb2.ROLE_USER, content="Well?")]),
            candidates=[reward_pb2.Candidate(text=text) for text in long],
            options=reward_pb2.ScoreOptions(truncation=reward_pb2.TRUNCATION_POLICY_PROMPT_LEFT),
        )
        with grpc.insecure_channel(self._place.rewards_target) as channel:
            stub = reward_pb2_grpc.RewardServiceStub(channel)
            calls = [stub.ScoreGroup.future(request, timeout=20) for _ in range(3)]
            hopeless = stub.ScoreGroup.future(request, timeout=0.05)
            hopeless.exception()
            for call in calls:
                call.cancel()  # type: ignore[no-untyped-call]


def _asks(pair: PreferencePair) -> bool:
    """Whether the answers answer somebody, and both the same."""
    return bool(pair.prompt) and pair.prompt[-1].role != "assistant" and not pair.rejected_prompt


def _refused(call: Callable[[], Any]) -> None:
    try:
        call()
    except (AssayClientError, JobFailed):
        return
    raise AssertionError("a service did what it must refuse")


def _kept(work: Callable[[threading.Event], None], errors: list[BaseException]) -> Callable[[threading.Event], None]:
    def kept(ended: threading.Event) -> None:
        try:
            work(ended)
        except BaseException as error:
            errors.append(error)

    return kept
