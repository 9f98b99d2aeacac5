"""Writes the dashboards into the chart: python -m monitoring.generate.

With --check nothing is written: the exit code is 1 where what is committed differs from what would be generated.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from monitoring.boards import cleaning, kafka, overview, reward_quality, reward_serving, training

FOLDER = Path(__file__).resolve().parent.parent / "helm" / "assay" / "dashboards"
BOARDS = (overview, reward_quality, reward_serving, cleaning, training, kafka)


def generated() -> dict[str, str]:
    """The text of each dashboard's file, by file name."""
    texts = {}
    for module in BOARDS:
        made = module.made()
        texts[f"{made.uid}.json"] = json.dumps(made, cls=JSONEncoder, indent=2, ensure_ascii=False) + "\n"
    return texts


def main() -> int:
    """Generates, or checks with --check."""
    texts = generated()
    committed = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
    if "--check" in sys.argv[1:]:
        stale = sorted(name for name in {*texts, *committed} if texts.get(name) != committed.get(name))
        for name in stale:
            print(f"{FOLDER.name}/{name} is not what monitoring/ generates; run `make chart`")
        return 1 if stale else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in committed.keys() - texts.keys():
        (FOLDER / name).unlink()
    for name, text in texts.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
