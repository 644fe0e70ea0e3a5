from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings

import pytest

from pipeline import runtime


def test_chatter_is_silenced_and_comes_back(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with runtime.quiet_imports():
        logging.getLogger("library").warning("optional package not found")
        warnings.warn("this Python is old", FutureWarning, stacklevel=1)
        print("visualisation will not function", file=sys.stderr)

    assert caplog.records == []
    assert capsys.readouterr().err == ""
    logging.getLogger("library").warning("heard again")
    assert caplog.messages == ["heard again"]


def test_libraries_that_write_past_python_are_silenced(capfd: pytest.CaptureFixture[str]) -> None:
    with runtime.quiet_imports():
        os.write(2, b"oneDNN custom operations are on\n")
    os.write(2, b"heard again\n")

    assert capfd.readouterr().err == "heard again\n"


def test_an_import_that_fails_still_fails() -> None:
    with pytest.raises(ModuleNotFoundError), runtime.quiet_imports():
        import a_library_that_is_not_there  # noqa: F401

    assert logging.root.manager.disable == logging.NOTSET


@pytest.mark.parametrize(
    ("variable", "growing", "taken"),
    [("TF_FORCE_GPU_ALLOW_GROWTH", "true", "false"), ("XLA_PYTHON_CLIENT_PREALLOCATE", "false", "true")],
    ids=["tensorflow", "jax"],
)
def test_gpu_memory_grows_unless_the_user_says_otherwise(
    variable: str, growing: str, taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(variable, raising=False)
    runtime.prepare()
    assert os.environ[variable] == growing

    monkeypatch.setenv(variable, taken)
    runtime.prepare()
    assert os.environ[variable] == taken


SCRIPT = """
import logging, sys
logging.basicConfig(level=logging.INFO)
from pipeline import runtime
runtime.prepare()
assert "tensorflow" not in sys.modules and "keras" not in sys.modules
import keras
keras.ops.sum([1.0])
"""


def test_tensorflow_starts_in_silence() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)

    assert done.stdout + done.stderr == ""
