"""What the process that runs are forked from has imported: a run then starts in a moment, not after many seconds of imports.

The settings are those that the libraries read while they are imported. Asking NVML instead of CUDA whether there is a GPU
leaves CUDA untouched here: once it has been used, no forked process can.
"""

import os

for _name, _value in {
    "OMP_NUM_THREADS": "1",  # a run sets its own number of threads for torch, whatever stands here
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
}.items():
    os.environ.setdefault(_name, _value)

from assay_training import bag_of_words, dpo, ppo, reward_model, sft  # noqa: E402

__all__ = ["bag_of_words", "dpo", "ppo", "reward_model", "sft"]
