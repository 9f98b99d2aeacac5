"""`python -m assay_reward`: serves."""

from __future__ import annotations

import gc
import os
import sys

from assay_kit.settings import load_settings
from assay_reward.settings import RewardSettings


def main() -> int:
    """Serves until SIGTERM; returns the exit code."""
    settings = load_settings(RewardSettings, "reward", sys.argv[1:])
    # Before torch and the tokenizers are imported: idle threads sleep instead of spinning, and threads are as many as was said.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OMP_NUM_THREADS", str(settings.threads))
    os.environ.setdefault("RAYON_NUM_THREADS", str(settings.threads))
    # The device thread keeps the interpreter for this long when others want it, and each call takes it several times: at the 5 ms
    # that are usual, a busy device would let no more than some fifty calls a second be refused.
    sys.setswitchinterval(0.0005)
    from assay_kit.server import run
    from assay_reward.app import reward_app

    app = reward_app(settings)
    # Half a million objects of the libraries live as long as the process. Left to the collector they make each full collection
    # a pause of 0.3 s, the device thread's too.
    gc.freeze()
    return run(app)


if __name__ == "__main__":
    raise SystemExit(main())
