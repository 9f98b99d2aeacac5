"""Benchmarks and policy evaluations as jobs of their own, outside of any study."""

from __future__ import annotations

from typing import Any

from assay.evaluation.v1 import evaluation_pb2
from assay_data.errors import DataError
from assay_data.pairs import read_pairs
from assay_data.storage import join_uri, write_json, write_jsonl
from assay_evaluation.benchmarking import benchmark_models, publish_cards
from assay_evaluation.generating import Sampling
from assay_evaluation.policy_evaluation import evaluate_policies
from assay_evaluation.samples import prompts_of, to_row
from assay_evaluation.work import Tools, Work
from assay_kit.errors import InvalidArgument
from assay_kit.jobs import JobContext, Jobs

BENCHMARK, POLICY_EVALUATION = "benchmark", "policy_evaluation"
MOST_MODELS = 64
DEFAULT_NEW_TOKENS = 48
CHUNK_PROMPTS = 64


class Measurements:
    """The measuring jobs of this service."""

    def __init__(self, *, jobs: Jobs, tools: Tools, outputs: str) -> None:
        """Declares the kinds of job; before `jobs.launch`.

        Args:
            jobs: The jobs of the service.
            tools: What the process has.
            outputs: Folder for outputs that no folder was named for.
        """
        self._tools = tools
        self._outputs = outputs
        jobs.kind(BENCHMARK, self._benchmark, concurrency=4)
        jobs.kind(POLICY_EVALUATION, self._evaluate, concurrency=4)

    def _benchmark(self, context: JobContext, spec: dict[str, Any]) -> dict[str, Any]:
        work = self._work(context, spec["output_uri"])

        def run() -> dict[str, Any]:
            pairs = _read(spec["data_uri"], spec["limit"])
            models = {name: name for name in spec["reward_models"]}
            benchmark_uri, scores_uri = (join_uri(work.folder, name) for name in ("benchmark.json", "scores.jsonl"))
            leaderboard = benchmark_models(work, pairs, models=models, on_policy=None, seed=0, scores_uri=scores_uri)
            write_json(benchmark_uri, leaderboard)
            if spec["publish_cards"]:
                publish_cards(work, leaderboard, models=models, data_uri=spec["data_uri"])
            uris = {"benchmark_uri": benchmark_uri, "scores_uri": scores_uri}
            return {**uris, "cards_published": spec["publish_cards"], **leaderboard}

        return context.step(BENCHMARK, run)

    def _evaluate(self, context: JobContext, spec: dict[str, Any]) -> dict[str, Any]:
        work = self._work(context, spec["output_uri"])

        def run() -> dict[str, Any]:
            prompts = prompts_of(_read(spec["data_uri"], 0), spec["limit"])
            names = list(dict.fromkeys([spec["reference_policy"], *spec["policies"]]))
            sampling = Sampling(
                n=1,
                max_new_tokens=spec["max_new_tokens"] or DEFAULT_NEW_TOKENS,
                min_new_tokens=0,
                temperature=1.0,
                seed=spec["seed"],
                chunk_prompts=CHUNK_PROMPTS,
            )
            figures, judged = evaluate_policies(
                work,
                prompts,
                policies={name: name for name in names},
                reference=spec["reference_policy"],
                gold=spec["gold_reward_model"],
                sampling=sampling,
            )
            rows = ({"policy": name, **to_row(samples)} for name, one in judged.items() for samples in one.samples)
            write_jsonl(join_uri(work.folder, "samples.jsonl"), rows)
            shown = {name: {key: value for key, value in one.items() if key != "gold_per_prompt"} for name, one in figures.items()}
            result = {"prompts": len(prompts), "reference_policy": spec["reference_policy"], "policies": shown}
            write_json(join_uri(work.folder, "evaluation.json"), {**result, "policies": figures})
            return {"evaluation_uri": join_uri(work.folder, "evaluation.json"), **result}

        return context.step(POLICY_EVALUATION, run)

    def _work(self, context: JobContext, output_uri: str) -> Work:
        folder = output_uri or join_uri(self._outputs, context.job_id)
        memo = join_uri(self._outputs, ".work", context.job_id)
        return Work(name=context.kind, run_id=context.job_id, folder=folder, memo=memo, shared=memo, tools=self._tools, reporter=context)


def benchmark_spec(request: evaluation_pb2.CreateBenchmarkJobRequest) -> dict[str, Any]:
    """The spec of a benchmark job.

    Raises:
        InvalidArgument: Names each field that is wrong.
    """
    wrong = [*_names("reward_models", request.reward_models)]
    if not request.data_uri:
        wrong.append(("data_uri", "missing; a file, folder or hub id with preference pairs is wanted"))
    if wrong:
        raise InvalidArgument.many(wrong)
    return {
        "reward_models": list(request.reward_models),
        "data_uri": request.data_uri,
        "output_uri": request.output_uri,
        "publish_cards": request.publish_cards,
        "limit": request.limit,
    }


def policy_evaluation_spec(request: evaluation_pb2.CreatePolicyEvaluationJobRequest) -> dict[str, Any]:
    """The spec of a policy evaluation job.

    Raises:
        InvalidArgument: Names each field that is wrong.
    """
    wrong = [*_names("policies", request.policies)]
    wrong += [
        (field, f"missing; {what} is wanted")
        for field, what in (
            ("reference_policy", "the name of a policy"),
            ("gold_reward_model", "the name of a reward model"),
            ("data_uri", "a file, folder or hub id with preference pairs"),
        )
        if not getattr(request, field)
    ]
    if request.seed >= 2**31:
        wrong.append(("seed", "must be below 2147483648"))
    if wrong:
        raise InvalidArgument.many(wrong)
    return {
        "policies": list(request.policies),
        "reference_policy": request.reference_policy,
        "gold_reward_model": request.gold_reward_model,
        "data_uri": request.data_uri,
        "output_uri": request.output_uri,
        "limit": request.limit,
        "max_new_tokens": request.max_new_tokens,
        "seed": request.seed,
    }


def _names(field: str, names: Any) -> list[tuple[str, str]]:
    if not 1 <= len(names) <= MOST_MODELS:
        return [(field, f"1 to {MOST_MODELS} names are wanted, got {len(names)}")]
    if len(set(names)) != len(names):
        return [(field, "a name is given twice")]
    return [(f"{field}[{index}]", "empty; the name of a model is wanted") for index, name in enumerate(names) if not name]


def _read(uri: str, limit: int) -> list[Any]:
    try:
        return list(read_pairs(uri, limit))
    except DataError as error:
        raise InvalidArgument("data_uri", str(error)) from error
