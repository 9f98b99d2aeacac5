"""Scores without a pause until a file appears: python calls.py MODEL END. Prints what came back, as JSON.

It runs in a pod of the test node, as any client of the release would: `replies` by fingerprint of the model, `mixed` replies whose scores
are not those that one model gives, `failed` calls by what they said.
"""

from __future__ import annotations

import collections
import json
import os
import sys
import threading
from pathlib import Path

from assay_client import AssayClientError, RewardClient

_PROMPT = [{"role": "user", "content": "Is the earth flat?"}]
_ANSWERS = ["No, it is round.", "Yes.", "I am not sure which one you mean."]
_THREADS = 4


def main(model: str, end: Path) -> None:
    replies: collections.Counter[str] = collections.Counter()
    failed: collections.Counter[str] = collections.Counter()
    scores: dict[str, set[tuple[float, ...]]] = collections.defaultdict(set)
    lock = threading.Lock()

    def call_on(reward: RewardClient) -> None:
        while not end.exists():
            try:
                group = reward.score_group(_PROMPT, _ANSWERS, model=model)
            except AssayClientError as error:
                with lock:
                    failed[str(error)] += 1
                continue
            with lock:
                replies[group.provenance.fingerprint] += 1
                scores[group.provenance.fingerprint].add(tuple(round(score.raw, 4) for score in group.scores))

    with RewardClient.connect(os.environ["ASSAY_REWARD_TARGET"], timeout_s=30) as reward:
        threads = [threading.Thread(target=call_on, args=(reward,)) for _ in range(_THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    mixed = sum(len(found) - 1 for found in scores.values())
    print(json.dumps({"replies": replies, "failed": failed, "mixed": mixed}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
