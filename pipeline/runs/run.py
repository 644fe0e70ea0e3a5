"""A run's directory, and which runs there are."""

from __future__ import annotations

import contextlib
import os
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pipeline import files, locks
from pipeline.errors import DataError, RefitError, SettingsError, TransientError
from pipeline.settings import refit_home, remote_location
from pipeline.stage import record_failure

if TYPE_CHECKING:
    from pipeline.runs.remote import Workspaces

RUNNING, INTERRUPTED, FAILED = "running", "interrupted", "failed"
NOTHING_NEW, REFUSED, PROMOTED = "nothing_new", "refused", "promoted"
REJECTED, WAITING = "rejected", "waiting"  # by a person; for a person's approval
DECIDED = {REFUSED, PROMOTED, REJECTED, WAITING}
BASES = {*DECIDED, NOTHING_NEW}  # later runs build on the data of these; nothing new may still mean new quarantine

PROMOTE = "promote"  # the one step that acts on the world, hence no stage of the graph
_DRIVING = ".dvc/tmp/driving.lock"
_LOOK_SECONDS = 1  # `driven` has the lock for a moment
_DVC_CONFIG = """\
[core]
    no_scm = true
    analytics = false
    check_update = false
    site_cache_dir = "{home}/cache/site"
[cache]
    dir = "{home}/cache"
    type = "reflink,hardlink,copy"
"""


@dataclass(frozen=True)
class Run:
    path: Path

    @property
    def run_id(self) -> str:
        return self.path.name

    @property
    def record(self) -> dict[str, Any]:
        """run.json."""
        content: dict[str, Any] = files.read_json(self.path / "run.json")
        return content

    def update(self, **changes: Any) -> None:
        files.write_json(self.path / "run.json", {**self.record, **changes})

    @property
    def params(self) -> dict[str, Any]:
        content: dict[str, Any] = yaml.safe_load((self.path / "params.yaml").read_text())
        return content


def safe_id(text: str) -> str:
    """A run id that is a plain folder name; schedulers' ids hold colons and plus signs."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", text).lstrip(".")[:128]
    if not name:
        raise SettingsError(f"--run-id {text!r} holds no letter or digit.", fix="use letters, digits, '.', '_' and '-'")
    return name


def new_id() -> str:
    return datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")[:-3]


def stage_names(run: Run) -> list[str]:
    """DVC's names of all stages, in an order in which they can be run: ingest, …, train@fold-0, …, gate."""
    graph: dict[str, Any] = yaml.safe_load((run.path / "dvc.yaml").read_text())["stages"]
    parts = run.params["train"]["parts"]
    return [target for name in graph for target in ([f"train@{part}" for part in parts] if name == "train" else [name])]


def stage_of(target: str) -> str:
    return target.partition("@")[0]


def workspaces() -> Workspaces | None:
    """Where machines that share no disk hand runs on, if execution.remote says so."""
    if (location := remote_location()) is None:
        return None
    from pipeline.runs.remote import workspaces  # boto3 takes 0.3 s to import

    return workspaces(location, refit_home() / "runs")


def publish(run: Run) -> None:
    """Let other machines have the run as it is now. What it names lies there already."""
    if (shared := workspaces()) is not None:
        shared.publish(run.run_id)


def find(run_id: str) -> Run:
    """The run as the machine that last worked on it has left it. Raises `DataError` if there is no such run."""
    run = Run(refit_home() / "runs" / safe_id(run_id))
    if (shared := workspaces()) is not None:
        fetch(run, shared)
    if not (run.path / "run.json").exists():
        raise DataError(f"There is no run {run_id!r} in {run.path.parent}.", fix="`refit runs` lists them")
    return run


def configure(path: Path) -> None:
    """Make the directory one that DVC works in, with the cache that all runs of this machine share."""
    files.write_text(path / ".dvc/config", _DVC_CONFIG.format(home=refit_home()))


def fetch(run: Run, shared: Workspaces) -> bool:
    """False if no machine has it."""
    if not shared.fetch(run.run_id):
        return False
    configure(run.path)
    return True


def all_runs() -> list[Run]:
    """Oldest first. Of those that other machines have made, only record and params need be here: `find` has all."""
    return [run for run, _ in recorded()]


def recorded() -> list[tuple[Run, dict[str, Any]]]:
    """`all_runs` with what their records are now: `refit gc` may remove a run before it is looked at once more."""
    if (shared := workspaces()) is not None:
        shared.refresh()
    found = []
    for path in (refit_home() / "runs").glob("[!.]*/run.json"):
        with contextlib.suppress(FileNotFoundError):
            found.append((Run(path.parent), files.read_json(path)))
    return sorted(found, key=lambda pair: (pair[1]["created_at"], pair[0].run_id))


def parent_of(model: str) -> Run | None:
    """The last run of this model that ended as it should."""
    bases = [run for run, record in recorded() if record["status"] in BASES and record["model"] == model]
    return bases[-1] if bases else None


def decided(run: Run) -> Run:
    """The run whose decision stands for `run`'s data: itself, or the one before that found something new."""
    while run.record["status"] == NOTHING_NEW:
        run = find(run.record["parent"])
    return run


def driven(run: Run) -> bool:
    """Whether a process works on `run`, on this machine or on another that has the same REFIT_HOME."""
    with locks.held(run.path / _DRIVING, shared=True, seconds=0) as free:
        return not free


def require_idle(run: Run) -> None:
    """Raises `TransientError` if a process works on `run`."""
    if driven(run):
        raise _busy(run)


def _busy(run: Run) -> TransientError:
    owner = run.record["owner"]
    by = f"process {owner['pid']} of {owner.get('host')}" if owner else "another process"
    return TransientError(f"The run {run.run_id} is being worked on by {by}.", fix="wait for it")


@contextlib.contextmanager
def deciding(run: Run) -> Iterator[None]:
    """Of this machine's processes, one at a time acts on the decision on a run."""
    with locks.held(run.path / ".dvc/tmp/deciding.lock"):
        yield


@contextlib.contextmanager
def driving(run: Run) -> Iterator[None]:
    """Record that this process works on `run`; what ends the block early is recorded as the run's status.

    Raises `TransientError` if another process does.
    """
    with locks.held(run.path / _DRIVING, seconds=_LOOK_SECONDS) as alone:
        if not alone:
            raise _busy(run)
        with _keeping_record(run):
            yield


@contextlib.contextmanager
def _keeping_record(run: Run) -> Iterator[None]:
    run.update(status=RUNNING, owner={"pid": os.getpid(), "host": platform.node()})
    try:
        yield
    except RefitError as error:
        with contextlib.suppress(OSError):
            record_failure(run.path, error)
            run.update(status=INTERRUPTED if isinstance(error, TransientError) else FAILED, owner=None)
        raise
    except BaseException:
        with contextlib.suppress(OSError):
            run.update(status=INTERRUPTED, owner=None)
        raise
    run.update(owner=None)
