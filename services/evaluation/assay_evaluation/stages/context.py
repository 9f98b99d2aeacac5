"""What a stage is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from assay_data.storage import join_uri
from assay_evaluation.study import Plan, resolve
from assay_evaluation.work import Work


@dataclass(frozen=True, kw_only=True)
class StageContext:
    """One stage of one run of a study.

    Attributes:
        plan: The study.
        study_id: Job id of the study; begins the names of all its jobs and models.
        output_uri: Folder of the study's outputs.
        results: Results of the stages this one needs, and of those they need, by name.
        work: What to work with.
    """

    plan: Plan
    study_id: str
    output_uri: str
    results: Mapping[str, Mapping[str, Any]]
    work: Work

    @property
    def seed(self) -> int:
        """Seed of the study."""
        return self.plan.study.seed

    def stage_of(self, reference: str, wants: str) -> str:
        """Name of the stage that a reference names."""
        return resolve(reference, wants, self.plan.study.stages)[0]

    def artifact(self, reference: str, wants: str) -> str:
        """URI of the output that a reference names."""
        stage, output = resolve(reference, wants, self.plan.study.stages)
        return str(self.results[stage]["artifacts"][output])

    def figures(self, reference: str, wants: str) -> Mapping[str, Any]:
        """Figures of the stage that a reference names."""
        figures: Mapping[str, Any] = self.results[self.stage_of(reference, wants)]["figures"]
        return figures

    def served_name(self, stage: str) -> str:
        """Name under which a stage's model is loaded."""
        return f"{self.study_id}.{stage}"

    def reward_model(self, reference: str) -> str:
        """Loads the reward model that a reference names, and gives its name at the reward service."""
        name, uri = self.served_name(self.stage_of(reference, "reward_model")), self.artifact(reference, "reward_model")
        self.work.patiently(lambda: self.work.tools.remote.reward.load_model(name, uri))
        return name

    def policy(self, reference: str) -> str:
        """Loads the policy that a reference names, and gives its name at the policy service."""
        name, uri = self.served_name(self.stage_of(reference, "policy")), self.artifact(reference, "policy")
        self.work.patiently(lambda: self.work.tools.remote.policy.load_model(name, uri))
        return name

    def output(self, *parts: str) -> str:
        """URI of an output of this stage."""
        return join_uri(self.work.folder, *parts)
