"""The reward service's own metrics; those of RPCs are the kit's.

Metrics of single models are in no registry: the collector shows them, so that they go when the model goes.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import Counter, Histogram

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SCORES = (-30.0, -20.0, -10.0, -5.0, -3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0)

CANDIDATES = Counter("assay_reward_candidates", "Candidates and items scored.", ["model", "door"], registry=None)
SCORE = Histogram("assay_reward_score", "Raw scores.", ["model", "revision"], buckets=_SCORES, registry=None)
TRUNCATED = Counter("assay_reward_truncated", "Candidates and items of which tokens were dropped.", ["model"], registry=None)
TOKENS = Counter(
    "assay_reward_tokens",
    "Tokens: useful (of the inputs), computed (by the device), padded (besides).",
    ["model", "kind"],
    registry=None,
)
CACHE_LOOKUPS = Counter("assay_reward_cache_lookups", "Inputs looked up in the result cache.", ["model", "outcome"], registry=None)
OF_MODELS = (CANDIDATES, SCORE, TRUNCATED, TOKENS, CACHE_LOOKUPS)
HTTP_REQUESTS = Counter("assay_reward_http_requests", "HTTP requests answered.", ["path", "status"])
HTTP_SECONDS = Histogram("assay_reward_http_seconds", "Time of an HTTP request.", ["path"], buckets=_SECONDS)
QUEUE_SECONDS = Histogram("assay_reward_queue_seconds", "Time of a unit of work in the queue.", buckets=_SECONDS)
COMPUTE_SECONDS = Histogram("assay_reward_compute_seconds", "Time of a batch on the device.", buckets=_SECONDS)
BATCH_TOKENS = Histogram("assay_reward_batch_tokens", "Tokens of a batch, by what its units cost.", buckets=[2**n for n in range(4, 21)])
BATCH_SEQUENCES = Histogram("assay_reward_batch_sequences", "Distinct sequences of a batch.", buckets=[2**n for n in range(12)])
DROPPED = Counter("assay_reward_dropped", "Candidates dropped before the device: cancelled, or past their deadline.", ["reason"])
REJECTED = Counter(
    "assay_reward_rejected",
    "Candidates refused: the queue or the room of remote models was full, or the deadline could not be met.",
    ["reason"],
)
JUDGE_ORDERS = Counter(
    "assay_reward_judge_comparisons",
    "Pairs that a pairwise judge was shown in both orders, by whether it agreed with itself.",
    ["judge", "outcome"],
)
VLLM_FAILURES = Counter(
    "assay_reward_vllm_failures",
    "Requests that a vLLM server did not answer, after each of which it is left alone until it is healthy.",
    ["server"],
)


def forget(gone: Iterable[tuple[str, str]], left: Iterable[str]) -> None:
    """Removes the series of models that are gone.

    Args:
        gone: name and revision of each.
        left: names that still have a model; of those only the revision goes.
    """
    names = set(left)
    for model, revision in gone:
        SCORE.remove_by_labels({"model": model, "revision": revision})
        if model not in names:
            for metric in (CANDIDATES, TRUNCATED, TOKENS, CACHE_LOOKUPS):
                metric.remove_by_labels({"model": model})
