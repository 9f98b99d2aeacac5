"""Python client of Assay's services: light, no torch, no Kafka.

from assay_client import AssayClient, Endpoints

with AssayClient(Endpoints.from_environment()) as assay:
    answer = assay.reward.score_group([{"role": "user", "content": "Hello?"}], ["Hi!", "No."])
"""

from assay_client.channels import Security
from assay_client.client import AssayClient
from assay_client.endpoints import Endpoints
from assay_client.errors import AssayClientError, ItemFailed, JobFailed
from assay_client.jobs import JobsClient, wait_for_job
from assay_client.reward import RewardClient
from assay_client.reward_async import AsyncRewardClient
from assay_client.scores import Score, ScoredBatch, ScoredGroup

__all__ = [
    "AssayClient",
    "AssayClientError",
    "AsyncRewardClient",
    "Endpoints",
    "ItemFailed",
    "JobFailed",
    "JobsClient",
    "RewardClient",
    "Score",
    "ScoredBatch",
    "ScoredGroup",
    "Security",
    "wait_for_job",
]
