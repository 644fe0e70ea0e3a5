"""`refit` as a child of the task's own process: no containers, no second machine."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any

from airflow.sdk import BaseOperator, Context
from process_death import end_with_parent, stop, stopped_on_error
from refit_command import Command, Outcome, Transcript

REFIT = Path(sys.executable).with_name("refit")  # of this environment, whatever PATH says


class ProcessCommand(Command, BaseOperator):
    """Run `refit` with `refit_arguments()` and log what it prints.

    The child stays in the task's process group, and ends when this process, which holds the other end of its standard
    input, does: also when SIGKILL hits this process alone.
    """

    _process: subprocess.Popen[str] | None = None

    def __init__(self, *, stage: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stage = stage

    def execute(self, context: Context) -> Any:
        end_with_parent()
        command = [str(REFIT), *self.refit_arguments(context)]
        self.log.info("Running %s", command)
        return self.conclude(context, self._run(command))

    def on_kill(self) -> None:
        if self._process is not None:
            stop(self._process)

    def _run(self, command: list[str]) -> Outcome:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, "PYTHONUNBUFFERED": "1", "REFIT_STOP_WITH_STDIN": "1"},
        )
        transcript = Transcript(self.log)

        def drain(stream: IO[str], *, output: bool) -> None:
            for line in stream:
                transcript.write(line, output=output)

        process = self._process
        with stopped_on_error(process):
            reader = threading.Thread(target=drain, args=(process.stderr,), kwargs={"output": False}, daemon=True)
            reader.start()
            drain(process.stdout, output=True)  # type: ignore[arg-type]
            reader.join()
            return Outcome(process.wait(), transcript.last_line, transcript.error)
