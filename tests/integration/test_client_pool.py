"""One reward client over two real reward services: calls go round, and go on when one service is killed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from support.reward_server import reward_processes, write_word_model

from assay_client import ItemFailed, RewardClient

ASK = [{"role": "user", "content": "How do I bake bread?"}]


def chat(number: int) -> list[dict[str, str]]:
    return [*ASK, {"role": "assistant", "content": f"answer {number % 50}"}]


def test_both_services_get_their_half_and_when_one_is_killed_no_call_fails(tmp_path: Path) -> None:
    shared = write_word_model(tmp_path / "shared")
    own = [write_word_model(tmp_path / f"own-{seed}", seed) for seed in (1, 2)]
    with reward_processes(tmp_path, *({"shared": shared, "own": folder} for folder in own)) as services:
        targets = [service.target() for service in services]
        with RewardClient.connect(",".join(targets), patience_s=60) as reward:
            while len({reward.get_model("own").provenance.fingerprint for _ in range(4)}) < 2:
                pass  # the second connection is still being made
            answered = Counter(reward.score_group(ASK, ["x"], model="own").provenance.fingerprint for _ in range(100))
            assert sorted(answered.values()) == [50, 50]

            expected = [reward.score_group(ASK, [f"answer {number}"], model="shared").scores[0].raw for number in range(50)]
            scores: list[float] = []
            for result in reward.score_stream(map(chat, range(20_000)), model="shared", batch_size=100):
                assert not isinstance(result, ItemFailed)
                scores.append(result.raw)
                if len(scores) == 2_000:
                    services[0].kill()
            assert scores == expected * 400
            left = {reward.score_group(ASK, ["x"], model="own").provenance.fingerprint for _ in range(20)}
            assert len(left) == 1 and left < answered.keys()
