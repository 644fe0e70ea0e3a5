"""What tasks run: a `refit` command each, what its exit status means, and what the task returns.

| status | meaning | task |
|---|---|---|
| 0 | done | success |
| 99 | nothing new | skipped, and with it all that follows |
| 75, or ended by a signal | busy, disk full, killed | retried |
| other | wrong input or settings, or a bug: the same command fails the same way | failed at once |

A task returns the last line on stdout if that is a JSON object, else None. Where the command runs is the affair of
the base class that `tasks` gets: `process_command`, `docker_command` or `kubernetes_command`.
"""

from __future__ import annotations

import json
import logging
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowException, AirflowSkipException
from form import start_options
from stage_graph import MODELS

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context

TRANSIENT = 75  # EX_TEMPFAIL of sysexits.h
NOTHING_NEW = 99
SIGNAL_BASE = 128  # a shell's status for "ended by signal n" is 128 + n
ERROR = "error:"  # how the line starts that tells what is wrong
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")  # colours and movements of a terminal's cursor


class RefitFailure(AirflowException):
    """`refit` failed in a way that a retry cannot cure."""


class TransientFailure(AirflowException):
    """`refit` failed, and the same command may succeed later."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended. `status`: its exit status, or minus the number of the signal that ended it."""

    status: int
    last_line: str  # on stdout
    error: str = ""  # the last line on stderr that starts with "error:"
    remark: str = ""  # what the place where it ran knows about the end
    final: bool = False  # a retry would end in the same way, whatever the status says


class Transcript:
    """What a command prints, line by line into the task's log; keeps what `Outcome` needs of it.

    Progress that redraws its line with carriage returns is logged every few seconds.
    """

    PROGRESS_SECONDS = 5.0

    def __init__(self, log: logging.Logger) -> None:
        self.log = log
        self.last_line = ""
        self.error = ""
        self._redrawn = -math.inf

    def write(self, line: str, *, output: bool) -> None:
        """`output`: the line was on stdout. It ends in a carriage return if what follows is drawn over it."""
        redrawn = line.endswith("\r")
        if not (text := _ESCAPES.sub("", line).rstrip()):
            return
        if redrawn:
            if time.monotonic() - self._redrawn < self.PROGRESS_SECONDS:
                return
            self._redrawn = time.monotonic()
        elif output:
            self.last_line = text
        if text.startswith(ERROR):
            self.error = text
            self.log.error(text)
        else:
            self.log.info(text)


@dataclass(frozen=True)
class Tasks:
    """The operators of one place."""

    StartRun: type[BaseOperator]
    RunStage: type[BaseOperator]
    RunCommand: type[BaseOperator]


def judge(name: str, outcome: Outcome) -> None:
    """Raise what an unsuccessful end of `refit name` means to the scheduler."""
    status = outcome.status
    if status == 0:
        return
    if status == NOTHING_NEW:
        raise AirflowSkipException("Nothing new in the source.")
    cause = outcome.error or outcome.last_line or "it printed nothing"
    remark = f" {outcome.remark}" if outcome.remark else ""
    transient = not outcome.final and (status == TRANSIENT or status < 0 or status > SIGNAL_BASE)
    kind = TransientFailure if transient else RefitFailure
    raise kind(f"refit {name} ended with status {status}: {cause}{remark}")


def json_object(line: str) -> dict[str, Any] | None:
    """The JSON object that is all of a line, if there is one."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def image_of(stage: str | None) -> str:
    """The image that has what a stage needs, by its key in `execution.*.images`."""
    return "train" if stage in MODELS else "data"


class Command:
    """What every operator here can say of its command. Mixed into an operator class that runs it."""

    stage: str | None = None
    part: str | None = None

    def refit_arguments(self, context: Context) -> list[str]:
        raise NotImplementedError

    def result(self, last_line: str) -> Any:
        """What the task returns, from the last line on stdout."""
        return json_object(last_line)

    def conclude(self, context: Context, outcome: Outcome) -> Any:
        """The task's result; raises if the command did not succeed."""
        judge(self.refit_arguments(context)[0], outcome)
        return self.result(outcome.last_line)


def tasks(place: type[BaseOperator]) -> Tasks:
    """The operators that run `refit` at a place: a subclass of `Command` and `BaseOperator`.

    `place` has `execute(context)`, which runs `refit_arguments(context)` and returns `conclude(context, outcome)`,
    and accepts the keyword `stage`: the stage whose needs (image, accelerator) the place is to meet, or None.
    """

    class StartRun(place):  # type: ignore[valid-type, misc]
        """Create the workspace of this run with what was entered in the DAG's form; gives the parts to train."""

        template_fields: Sequence[str] = ()

        def __init__(self, **kwargs: Any) -> None:
            super().__init__(stage=None, **kwargs)

        def refit_arguments(self, context: Context) -> list[str]:
            return ["start", f"--run-id={context['run_id']}", *start_options(context["params"])]

        def result(self, last_line: str) -> list[str]:
            try:
                return list(json.loads(last_line)["parts"])
            except (ValueError, TypeError, KeyError):
                raise RefitFailure(
                    f'Expected refit start to end with {{"run_id": …, "parts": […]}}, got {last_line!r}.'
                ) from None

    class RunStage(place):  # type: ignore[valid-type, misc]
        """Run one stage of this run's workspace, or one part of it."""

        template_fields: Sequence[str] = ("part", "options")

        def __init__(self, *, stage: str, part: str | None = None, options: Sequence[str] = (), **kwargs: Any) -> None:
            super().__init__(stage=stage, **kwargs)
            self.stage = stage
            self.part = part
            self.options = list(options)

        def refit_arguments(self, context: Context) -> list[str]:
            part = [f"--part={self.part}"] if self.part else []
            return ["stage", self.stage, *part, f"--run-id={context['run_id']}", *self.options]

    class RunCommand(place):  # type: ignore[valid-type, misc]
        """Run any other `refit` command, such as `arguments=["rollback", "--reason={{ params.reason }}"]`.

        Arguments that turn out empty are left away.
        """

        template_fields: Sequence[str] = ("arguments",)

        def __init__(self, *, arguments: Sequence[str], **kwargs: Any) -> None:
            super().__init__(stage=None, **kwargs)
            self.arguments = list(arguments)

        def refit_arguments(self, context: Context) -> list[str]:
            return [text for text in self.arguments if text]

    for kind in (StartRun, RunStage, RunCommand):
        kind.__qualname__ = kind.__name__  # as logs and the UI show it
        kind.template_ext = ()  # an argument that ends in .sh is no file to be read
    return Tasks(StartRun, RunStage, RunCommand)
