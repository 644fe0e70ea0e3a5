"""What must be in place before heavy libraries are imported. Imports none of them itself."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path


def prepare(*, backend: str | None = None) -> None:
    """Silence TensorFlow's startup chatter and let GPU memory grow. Call before the first `import keras`.

    What the user has set in the environment stays, but for the backend of Keras, if one is given.
    """
    if backend is not None:
        os.environ["KERAS_BACKEND"] = backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # level 2 still reports CUDA plugins registered twice
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    os.environ.setdefault(
        "XLA_PYTHON_CLIENT_PREALLOCATE", "false"
    )  # JAX would take three quarters of the memory at once
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it reports each asset it writes, each function traced
    # google.api_core tells at every start when it will stop supporting this Python.
    warnings.filterwarnings("ignore", category=FutureWarning, module="google.api_core")


@contextlib.contextmanager
def quiet_imports() -> Iterator[None]:
    """Silence what Great Expectations, TFDV and Beam write while they are imported; errors still come through.

    They log some 300 lines about their own registries, warn of the age of Python and miss IPython: nothing that a
    user can act upon, and it buries the one line that a failing stage ends with. TensorFlow 2.21 writes past Python,
    to the file descriptor, before it reads any setting.
    """
    prepare()
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()), no_descriptor_2():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


@contextlib.contextmanager
def no_descriptor_2() -> Iterator[None]:
    """Drop what libraries write to standard error past Python. Everything else that writes there is dropped too."""
    kept = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
