"""Where tasks run: the operators that `execution.mode` asks for."""

from __future__ import annotations

from types import ModuleType

import refit_command
from refit_settings import Execution


def operators(execution: Execution) -> ModuleType:
    """A module with `StartRun` and `RunStage`."""
    if execution.mode == "process":
        return refit_command
    raise ValueError(f"execution.mode: expected process, got {execution.mode!r}.")
