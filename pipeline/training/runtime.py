"""Settings of TensorFlow that must be in place before it is imported. Imports nothing heavy itself."""

from __future__ import annotations

import logging
import os
import warnings


def prepare() -> None:
    """Silence TensorFlow's startup chatter and let its GPU memory grow. Call before the first `import keras`.

    What the user has set in the environment stays.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # level 2 still reports CUDA plugins registered twice
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it reports each asset it writes, each function traced
    # google.api_core tells at every start when it will stop supporting this Python.
    warnings.filterwarnings("ignore", category=FutureWarning, module="google.api_core")
