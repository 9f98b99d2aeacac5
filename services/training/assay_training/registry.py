"""The algorithms: a name, a line for people, the defaults, and the module that trains.

To add one: write a module with ``train(run: Run) -> Outcome`` (see `assay_training.runs`), give its spec a message in
``training.proto`` and a class in `assay_training.spec`, and add it to `ALGORITHMS`. Modules are named, not imported, so
that the service carries no torch; only the child process of a run imports its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from assay_training.spec import OptimizerOptions, RewardModelKind, RewardModelSpec, SftSpec, TrainingRequest


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """An algorithm of the service."""

    name: str
    """Also the field of the request that holds its spec and the kind of its jobs."""
    description: str
    defaults: OptimizerOptions
    """Used where the request has 0."""
    module: str
    """Import path of the module that has ``train``."""


ALGORITHMS: dict[str, Algorithm] = {
    algorithm.name: algorithm
    for algorithm in (
        Algorithm(
            name="sft",
            description="Supervised fine-tuning on the chosen answers, of a given causal LM or of a new one.",
            defaults=OptimizerOptions(learning_rate=2e-4, epochs=2, batch_size=32, max_length=128),
            module="assay_training.sft",
        ),
        Algorithm(
            name="reward_model",
            description="Bradley-Terry reward model: a sequence classifier on a causal LM, or a bag of words.",
            defaults=OptimizerOptions(learning_rate=1e-3, epochs=3, batch_size=32, max_length=160),
            module="assay_training.reward_model",
        ),
        Algorithm(
            name="dpo",
            description="Direct preference optimisation of a policy, held to where it starts.",
            defaults=OptimizerOptions(learning_rate=3e-4, epochs=1, batch_size=32, max_length=160),
            module="assay_training.dpo",
        ),
        Algorithm(
            name="ppo",
            description="Proximal policy optimisation against a model of the reward service, with a learned value head.",
            defaults=OptimizerOptions(learning_rate=3e-4, batch_size=64, max_length=128),
            module="assay_training.ppo",
        ),
    )
}


SCRATCH_DEFAULTS = OptimizerOptions(learning_rate=3e-3, epochs=2, batch_size=8, max_length=128)
"""A model made from nothing wants many small steps: 8 examples a step reach in one pass what 32 reach in three."""


def defaults_of(request: TrainingRequest) -> OptimizerOptions:
    """What stands where the request has 0."""
    if isinstance(request.spec, SftSpec) and request.spec.scratch is not None:
        return SCRATCH_DEFAULTS
    return algorithm_of(request).defaults


def algorithm_of(request: TrainingRequest) -> Algorithm:
    """The algorithm that a request asks for."""
    return ALGORITHMS[request.algorithm]


def module_of(request: TrainingRequest) -> str:
    """Import path of the module that trains what a request asks for."""
    if isinstance(request.spec, RewardModelSpec) and request.spec.kind == RewardModelKind.BAG_OF_WORDS:
        return "assay_training.bag_of_words"
    return algorithm_of(request).module
