"""Trains a model at the training service and follows the job to its end."""

from __future__ import annotations

from typing import Any

from assay.jobs.v1 import jobs_pb2
from assay.training.v1 import training_pb2
from assay_client.training import Spec
from assay_data.fingerprints import fingerprint_folder
from assay_data.storage import join_uri, local_path
from assay_evaluation.stage_kinds import Dpo, Gate, Optimizer, Ppo, RewardModel, Sft
from assay_evaluation.stages.context import StageContext
from assay_kit.jobs import JobCancelled

_KINDS = {
    "sequence_classifier": training_pb2.REWARD_MODEL_KIND_SEQUENCE_CLASSIFIER,
    "bag_of_words": training_pb2.REWARD_MODEL_KIND_BAG_OF_WORDS,
}


def run_sft(context: StageContext, stage: Sft) -> dict[str, Any]:
    """Supervised fine-tuning."""
    spec = training_pb2.SftSpec(data_uri=context.artifact(stage.data, "pairs"), include_rejected=stage.include_rejected)
    if stage.scratch is not None:
        spec.scratch.CopyFrom(training_pb2.ScratchModel(**stage.scratch.model_dump()))
    else:
        spec.model_uri = stage.model_uri
    return _train(context, stage.optimizer, stage.threads, spec)


def run_reward_model(context: StageContext, stage: RewardModel) -> dict[str, Any]:
    """A Bradley-Terry reward model."""
    spec = training_pb2.RewardModelSpec(
        kind=_KINDS[stage.model],
        model_uri=context.artifact(stage.base, "policy") if stage.base is not None else stage.model_uri,
        data_uri=context.artifact(stage.data, "pairs"),
        label_flip_rate=stage.label_flip_rate,
    )
    return _train(context, stage.optimizer, stage.threads, spec)


def run_dpo(context: StageContext, stage: Dpo) -> dict[str, Any]:
    """Direct preference optimisation."""
    spec = training_pb2.DpoSpec(
        model_uri=context.artifact(stage.policy, "policy"), data_uri=context.artifact(stage.data, "pairs"), beta=stage.beta
    )
    if stage.gate is not None and stage.reward_model is not None:
        spec.gate.CopyFrom(_gate(context, stage.gate, stage.reward_model))
    return _train(context, stage.optimizer, stage.threads, spec)


def run_ppo(context: StageContext, stage: Ppo) -> dict[str, Any]:
    """Proximal policy optimisation."""
    spec = training_pb2.PpoSpec(
        model_uri=context.artifact(stage.policy, "policy"),
        data_uri=context.artifact(stage.prompts, "pairs"),
        gate=_gate(context, stage.gate, stage.reward_model),
        beta=stage.beta,
        rollout_size=stage.rollout_size,
        rollouts=stage.rollouts,
        epochs_per_rollout=stage.epochs_per_rollout,
        max_new_tokens=stage.max_new_tokens,
        snapshot_rollouts=stage.snapshot_rollouts,
    )
    return _train(context, stage.optimizer, stage.threads, spec)


def _gate(context: StageContext, gate: Gate, reward_model: str) -> training_pb2.Gate:
    return training_pb2.Gate(
        reward_model=context.reward_model(reward_model),
        min_accuracy_low=gate.min_accuracy_low,
        override_reason=gate.override_reason,
    )


def _train(context: StageContext, optimizer: Optimizer, threads: int, spec: Spec) -> dict[str, Any]:
    work = context.work
    remote = work.tools.remote
    job_id = context.served_name(work.name)
    options = training_pb2.OptimizerOptions(**optimizer.model_dump())

    def create() -> jobs_pb2.Job:
        return remote.training.create_training_job(
            spec, context.output("model"), optimizer=options, seed=context.seed, threads=threads, job_id=job_id
        )

    try:
        work.patiently(create)
        result = remote.follow_job("training", job_id, on_event=lambda event: _report(context, event), pause=work.pause)
    except JobCancelled:
        remote.cancel_job("training", job_id)
        raise
    fingerprint = fingerprint_folder(local_path(result["model_uri"])).fingerprint
    return {
        "artifacts": {"model": result["model_uri"]},
        "figures": {
            "fingerprint": fingerprint,
            "steps": result.get("steps", 0),
            "gate": result.get("gate"),
            "snapshots": [
                {"rollout": one["rollout"], "model_uri": join_uri(result["model_uri"], one["path"])}
                for one in result.get("snapshots") or []
            ],
        },
    }


def _report(context: StageContext, event: jobs_pb2.JobEvent) -> None:
    if event.HasField("progress"):
        told = event.progress
        metrics = ", ".join(f"{name} {value:.3g}" for name, value in sorted(told.metrics.items()))
        context.work.reporter.progress(
            context.work.name,
            int(told.done),
            int(told.total),
            unit=told.unit,
            message=" ".join(filter(None, [told.stage, told.message, metrics])),
        )
