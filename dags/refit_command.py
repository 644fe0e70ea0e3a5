"""Operators that run the `refit` command and give its exit status a meaning.

| status | meaning | task |
|---|---|---|
| 0 | done | success |
| 99 | nothing new | skipped, and with it all that follows |
| 75, or ended by a signal | busy, disk full, killed | retried |
| other | wrong input or settings, or a bug: the same command fails the same way | failed at once |
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowException, AirflowSkipException

TRANSIENT = 75  # EX_TEMPFAIL of sysexits.h
NOTHING_NEW = 99
SIGNAL_BASE = 128  # a shell's status for "ended by signal n" is 128 + n
GRACE_SECONDS = 20
REFIT = Path(sys.executable).with_name("refit")  # of this environment, whatever PATH says


class RefitFailure(AirflowException):
    """`refit` failed in a way that a retry cannot cure."""


class TransientFailure(AirflowException):
    """`refit` failed, and the same command may succeed later."""


class RefitOperator(BaseOperator):
    """Run `refit` with `arguments()` and log what it prints.

    The child stays in the task's process group, so whatever ends the task, SIGKILL included, ends it too.
    """

    _process: subprocess.Popen[str] | None = None

    def arguments(self, context: Context) -> list[str]:
        raise NotImplementedError

    def execute(self, context: Context) -> Any:
        command = [str(REFIT), *self.arguments(context)]
        self.log.info("Running %s", command)
        last_line, errors, status = self._run(command)
        if status == NOTHING_NEW:
            raise AirflowSkipException("Nothing new in the source.")
        if status != 0:
            cause = errors or last_line or "it printed nothing"
            kind = TransientFailure if status == TRANSIENT or status < 0 or status > SIGNAL_BASE else RefitFailure
            raise kind(f"refit {self.arguments(context)[0]} ended with status {status}: {cause}")
        return self.result(last_line)

    def result(self, last_line: str) -> Any:
        """What the task returns, from the last line on stdout: the JSON object that it is, else None."""
        try:
            found = json.loads(last_line)
        except ValueError:
            return None
        return found if isinstance(found, dict) else None

    def on_kill(self) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def _run(self, command: list[str]) -> tuple[str, str, int]:
        """(last line on stdout, last line on stderr that starts with "error:", exit status)."""
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        last = {"stdout": "", "error": ""}

        def drain(stream: IO[str], *, output: bool) -> None:
            for line in stream:
                if not (text := line.rstrip()):
                    continue
                if output:
                    last["stdout"] = text
                if text.startswith("error:"):
                    last["error"] = text
                    self.log.error(text)
                else:
                    self.log.info(text)

        with self._process as process:
            reader = threading.Thread(target=drain, args=(process.stderr,), kwargs={"output": False}, daemon=True)
            reader.start()
            drain(process.stdout, output=True)  # type: ignore[arg-type]
            reader.join()
            return last["stdout"], last["error"], process.wait()


class StartRun(RefitOperator):
    """Create the workspace of this run from the DAG's params `source` and `set`; gives the parts to train."""

    def arguments(self, context: Context) -> list[str]:
        params = context["params"]
        source = [f"--source={params['source']}"] if params["source"] else []
        return ["start", f"--run-id={context['run_id']}", *source, *(f"--set={text}" for text in params["set"])]

    def result(self, last_line: str) -> list[str]:
        try:
            return list(json.loads(last_line)["parts"])
        except (ValueError, TypeError, KeyError):
            raise RefitFailure(
                f'Expected refit start to end with {{"run_id": …, "parts": […]}}, got {last_line!r}.'
            ) from None


class RunStage(RefitOperator):
    """Run one stage of this run's workspace, or one part of it."""

    template_fields: Sequence[str] = ("part", "options")

    def __init__(self, *, stage: str, part: str | None = None, options: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stage = stage
        self.part = part
        self.options = list(options)

    def arguments(self, context: Context) -> list[str]:
        part = [f"--part={self.part}"] if self.part else []
        return ["stage", self.stage, *part, f"--run-id={context['run_id']}", *self.options]
