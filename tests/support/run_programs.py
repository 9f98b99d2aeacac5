"""What a run's process does in tests of how it is supervised, in the place of training."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from assay_training.run import die_with


def killed_twice(argv: Sequence[str]) -> int:
    """Is killed in its first two tries, which it counts beside its spec."""
    tries = Path(argv[1]).with_name("tries")
    count = len(tries.read_text()) if tries.exists() else 0
    tries.write_text("x" * (count + 1))
    print(json.dumps({"stage": "train", "try": count}), flush=True)
    if count < 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return 0


def orphaned_once(argv: Sequence[str]) -> int:
    """Kills, in its first try, the process it was forked from, which takes it along."""
    tries = Path(argv[1]).with_name("tries")
    if not tries.exists():
        tries.touch()
        die_with(os.getppid())
        os.kill(os.getppid(), signal.SIGKILL)
        signal.pause()
    print(json.dumps({"stage": "train"}), flush=True)
    return 0


def always_killed(argv: Sequence[str]) -> int:
    """Is killed in every try."""
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def last_word(argv: Sequence[str]) -> int:
    """Says what is wrong and ends."""
    print(json.dumps({"error": "row 3 is wrong"}), flush=True)
    return 1


def no_word(argv: Sequence[str]) -> int:
    """Dies of what nobody thought of."""
    raise ZeroDivisionError("division by zero")
