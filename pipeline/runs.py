"""Runs: a directory each, in which `dvc.yaml`'s stages are reproduced.

A run holds its own copy of params, graph and code, starts from the lock and the outputs of the last good run of
the same model, and can be continued after any interruption.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import signal
import sqlite3
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, cast

import psutil
import yaml

from pipeline import files
from pipeline.backbones.registry import LIVE
from pipeline.dataset import store
from pipeline.errors import DataError, RefitError, SettingsError, TransientError
from pipeline.ingestion import releases
from pipeline.promotion.opening import open_registry
from pipeline.promotion.registry import MODEL, Live, Registry
from pipeline.settings import Settings, code_root, load, params_file, parse, read_params, refit_home, remote_location
from pipeline.stage import DONE, FAILURE, explain, record_failure
from pipeline.training import recipes

if TYPE_CHECKING:
    from pipeline.remote import Workspaces

RUNNING, INTERRUPTED, FAILED = "running", "interrupted", "failed"
NOTHING_NEW, REFUSED, PROMOTED = "nothing_new", "refused", "promoted"
REJECTED, WAITING = "rejected", "waiting"  # by a person; for a person's approval
DECIDED = {REFUSED, PROMOTED, REJECTED, WAITING}
BASES = {*DECIDED, NOTHING_NEW}  # later runs build on the data of these; nothing new may still mean new quarantine

STRICTER = ("never", "borderline", "always")  # each value of gate.approval asks a person more often than those before
PROMOTE = "promote"  # the one step that acts on the world, hence no stage of the graph
MINIMUM_FREE_BYTES = 200 << 20  # a model with its optimizer's checkpoints, shards of a small batch, DVC's database
_CODE = ("pipeline", "components")
_PROMOTED = ("models/final", "data/assignment.parquet", "data/manifest", "data/features")
_TABLES = (
    "data/manifest",
    "data/quarantine",
    "data/features",
    "data/duplicates",
    "data/splits",
    "data/assignment.parquet",
)
_REPORTED = ("data/quarantine", "data/predictions.parquet", "models/final/history.json")
_GRAPH = ("dvc.yaml", ".dvcignore")
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


def registry(model: str, params: Mapping[str, Any] | None = None) -> Registry:
    """The registry of a model, where `params` (a run's own) or else `registry_settings` says.

    Raises `SettingsError` if the location is of no known kind.
    """
    # Runs made by earlier versions have no such section.
    section = registry_settings(model) if params is None else params.get("registry") or {}
    return open_registry(section.get("location"), model)


def registry_settings(model: str) -> Mapping[str, Any]:
    """The section `registry` for commands that belong to no run: that of params.yaml, and for what is null there, that
    of the model's newest run. So a rollback finds the models of runs whose location was given with --set.
    """
    section: dict[str, Any] = read_params(params_file()).get("registry") or {}
    own = [run for run in all_runs() if run.record["model"] == model]
    newest = own[-1].params.get("registry") if own else None
    return {key: value if value is not None else (newest or {}).get(key) for key, value in section.items()}


def safe_id(text: str) -> str:
    """A run id that is a plain folder name; schedulers' ids hold colons and plus signs."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", text).lstrip(".")[:128]
    if not name:
        raise SettingsError(f"--run-id {text!r} holds no letter or digit.", fix="use letters, digits, '.', '_' and '-'")
    return name


def new_id() -> str:
    return datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")[:-3]


def workspaces() -> Workspaces | None:
    """Where machines that share no disk hand runs on, if execution.remote says so."""
    if (location := remote_location()) is None:
        return None
    from pipeline.remote import workspaces  # boto3 takes 0.3 s to import

    return workspaces(location, refit_home() / "runs")


def publish(run: Run) -> None:
    """Let other machines have the run as it is now. What it names lies there already."""
    if (shared := workspaces()) is not None:
        shared.publish(run.run_id)


def find(run_id: str) -> Run:
    """The run as the machine that last worked on it has left it. Raises `DataError` if there is no such run."""
    run = Run(refit_home() / "runs" / safe_id(run_id))
    if (shared := workspaces()) is not None:
        _fetch(run, shared)
    if not (run.path / "run.json").exists():
        raise DataError(f"There is no run {run_id!r} in {run.path.parent}.", fix="`refit runs` lists them")
    return run


def _fetch(run: Run, shared: Workspaces) -> bool:
    """False if no machine has it."""
    if not shared.fetch(run.run_id):
        return False
    files.write_text(run.path / ".dvc/config", _DVC_CONFIG.format(home=refit_home()))
    return True


def all_runs() -> list[Run]:
    """Oldest first. Of those that other machines have made, only record and params need be here: `find` has all."""
    if (shared := workspaces()) is not None:
        shared.refresh()
    found = [Run(path.parent) for path in (refit_home() / "runs").glob("[!.]*/run.json")]
    return sorted(found, key=lambda run: (run.record["created_at"], run.run_id))


def parent_of(model: str) -> Run | None:
    """The last run of this model that ended as it should."""
    bases = [run for run in all_runs() if run.record["status"] in BASES and run.record["model"] == model]
    return bases[-1] if bases else None


def decided(run: Run) -> Run:
    """The run whose decision stands for `run`'s data: itself, or the one before that found something new."""
    while run.record["status"] == NOTHING_NEW:
        run = find(run.record["parent"])
    return run


def interrupted(params: Mapping[str, Any]) -> Run | None:
    """The newest unscheduled run of the model, if it was cut off and params and code are the same."""
    model = params["promote"]["model"]
    candidates = [run for run in all_runs() if run.record["model"] == model and not run.record["scheduled"]]
    if not candidates:
        return None
    last = candidates[-1]
    cut_off = last.record["status"] in {RUNNING, INTERRUPTED} and not _alive(last.record["owner"])
    same = last.params == params and code_digest(last.path) == code_digest(code_root())
    return last if cut_off and same else None


def create(run_id: str, params: Mapping[str, Any], *, scheduled: bool = False) -> Run:
    """A new run directory, complete or not there at all; an existing run of this id is returned as it is.

    `scheduled`: a scheduler drives it, stage by stage, and will itself continue it.

    Raises `SettingsError` for wrong params, a source or a registry that is not this model's, and `OSError`.
    """
    settings = parse(params)
    recipes.check(settings.train)
    run = Run(refit_home() / "runs" / safe_id(run_id))
    shared = workspaces()
    if shared is not None:
        _require_shareable(shared, settings)
        if _fetch(run, shared):
            return run
    if (run.path / "run.json").exists():
        return run
    if scheduled:
        _require_approval(settings)
    model = settings.promote.model
    parent = parent_of(model)
    if parent is not None:
        if shared is not None:
            _fetch(parent, shared)
        _same_source(parent, params)
    try:
        run.path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"REFIT_HOME: {refit_home()} cannot be made a directory ({error.strerror}).",
            fix="set it to one you may write",
        ) from None
    require_space()
    staged = Path(tempfile.mkdtemp(prefix=files.TEMPORARY_PREFIX, dir=run.path.parent))
    try:
        staged.chmod(0o755)
        (staged / ".dvc").mkdir()
        (staged / ".dvc/config").write_text(_DVC_CONFIG.format(home=refit_home()))
        for name in _GRAPH:
            shutil.copyfile(code_root() / name, staged / name)
        for name in _CODE:
            shutil.copytree(code_root() / name, staged / name, ignore=shutil.ignore_patterns("__pycache__"))
        (staged / "params.yaml").write_text(yaml.safe_dump(dict(params), sort_keys=False))
        _copy_schema(settings.validate_.schema_, staged / "schema.pbtxt")
        live = _as_found_elsewhere(registry(model, params).live(), run, shared)
        if parent is not None and live.version is None:
            _same_registry(parent, params)
        files.write_json(staged / "live.json", live.as_json())
        # Apart from live.json, so that a new live model makes nothing be trained again that does not start from it.
        warm = {"model": f"{live.path}/{MODEL}"} if settings.train.weights == LIVE and live.path else {}
        files.write_json(staged / "warm_start.json", warm)
        if parent is not None:
            shutil.copyfile(parent.path / "dvc.lock", staged / "dvc.lock")
            _check_out(staged, shared)
        record = {
            "run_id": run.run_id,
            "status": RUNNING,
            "created_at": datetime.now(UTC).isoformat(),
            "model": model,
            "scheduled": scheduled,
            "parent": parent.run_id if parent else None,
            "fingerprint": None,
            "owner": None,
        }
        files.write_json(staged / "run.json", record)
        staged.rename(run.path)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    return run


def _copy_schema(chosen: str | None, target: Path) -> None:
    """A run is held against the schema as it was when the run began, whatever becomes of the user's file."""
    try:
        shutil.copyfile(chosen or code_root() / "pipeline/validation/schema.pbtxt", target)
    except OSError as error:
        raise SettingsError(
            f"validate.schema: {chosen} cannot be read ({error.strerror}).",
            fix="check the path; `refit schema propose` drafts a schema",
        ) from None


def _require_approval(settings: Settings) -> None:
    """Who may start a run need not be one of those who approve. Raises `SettingsError`."""
    asked, wanted = settings.gate.approval, load(params_file()).gate.approval
    if STRICTER.index(asked) < STRICTER.index(wanted):
        raise SettingsError(
            f"gate.approval: {params_file()} says {wanted}, a run of the scheduler may ask for more and not for less, "
            f"got {asked}.",
            fix="leave it out, or have it changed there",
        )


def _require_shareable(shared: Workspaces, settings: Settings) -> None:
    """Raises `SettingsError` for what other machines would not find."""
    if settings.execution.remote != shared.location:
        raise SettingsError(
            f"execution.remote: expected {shared.location}, as {params_file()} says, got {settings.execution.remote}.",
            fix="set it there: commands that are given a run's name alone must find it too",
        )
    if settings.registry.location is None:
        raise SettingsError(
            "registry.location is null, a folder of this machine alone, but execution.remote lets others run stages.",
            fix="set registry.location to s3://bucket/prefix too",
        )
    shared.check()


def _as_found_elsewhere(live: Live, run: Run, shared: Workspaces | None) -> Live:
    """Its path from the run's directory where that is the same on all machines, whatever their REFIT_HOME."""
    if shared is None or live.path is None or not Path(live.path).is_relative_to(refit_home()):
        return live
    return replace(live, path=os.path.relpath(live.path, run.path))


def _check_out(path: Path, shared: Workspaces | None) -> None:
    """Link the outputs that the lock names from the cache; raises `DataError` if one is gone from it. Those that
    machines share come stage by stage (`_bring`).

    Going on without them would look like success: the whole source would be ingested anew and its test set redrawn.
    """
    lock = yaml.safe_load((path / "dvc.lock").read_text())
    # The parent may have had other stages: more folds, an older graph.
    lock["stages"] = {name: lock["stages"][name] for name in stage_names(Run(path)) if name in lock["stages"]}
    (path / "dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False))
    if shared is not None:
        return
    # By output, not by stage: the parent's stages may have had fewer, which is no loss. What they had must be there.
    outputs = [output["path"] for stage in lock["stages"].values() for output in stage.get("outs", ())]
    with _using_cache(), _repo(path) as repo, contextlib.chdir(path):
        declared = {str(out) for out in repo.index.outs}
        repo.checkout(targets=[output for output in outputs if output in declared], force=True)


def require_space() -> None:
    """Raises `TransientError` on a disk that is as good as full: better before an hour of work than after it."""
    free = shutil.disk_usage(refit_home()).free
    if free < MINIMUM_FREE_BYTES:
        raise TransientError(
            f"Expected at least {MINIMUM_FREE_BYTES >> 20} MB free at {refit_home()}, found {free >> 20} MB.",
            fix="free disk space or set REFIT_HOME to another disk",
        )


def _same_source(parent: Run, params: Mapping[str, Any]) -> None:
    """A second folder under the same model name is nearly always another classifier's: ask instead of mixing them."""
    before, now = parent.params["ingest"]["source"], params["ingest"]["source"]
    if before != now and not params["ingest"]["allow_new_source"]:
        model = params["promote"]["model"]
        raise SettingsError(
            f"The model {model!r} has learned from {before} so far, the source now is {now}.",
            fix="name another model with --model NAME, or mix the two with --set ingest.allow_new_source=true",
        )


def _same_registry(parent: Run, params: Mapping[str, Any]) -> None:
    """An empty registry makes a candidate the first model, which nothing live is compared with: not by a mistaken
    place. Only the parent is asked, as its registry may be out of reach."""
    model = params["promote"]["model"]
    before, now = registry(model, parent.params).storage.base, registry(model, params).storage.base
    had_live = parent.record["status"] == PROMOTED or files.read_json(parent.path / "live.json")["version"] is not None
    if before != now and had_live:
        location = (parent.params.get("registry") or {}).get("location") or "null"
        raise SettingsError(
            f"registry.location: the model {model!r} has been live in {before}, and {now} has no live version.",
            fix=f"--set registry.location={location}, copy {before} to {now} first, or name another model with "
            "--model NAME",
        )


def code_digest(root: Path) -> str:
    """Of the graph and of all Python files that stages may import."""
    parts = [files.sha256(root / "dvc.yaml"), *(files.sha256_tree(root / name) for name in _CODE)]
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def fingerprint(run: Run) -> str:
    """Of everything that decides a run's outcome but the live model: data, params and code.

    Neither where a run works nor where models are kept decides it.
    """
    params = {name: section for name, section in run.params.items() if name not in {"execution", "registry"}}
    schema = files.sha256(run.path / "schema.pbtxt")
    content = [files.sha256_tree(run.path / "data/manifest"), params, schema, code_digest(run.path)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def nothing_new(run: Run) -> bool:
    """Whether the parent has already decided on this data with these params and this code. Call after ingest."""
    value = fingerprint(run)
    run.update(fingerprint=value)
    parent = run.record["parent"]
    return parent is not None and find(parent).record["fingerprint"] == value


@contextlib.contextmanager
def _using_cache() -> Iterator[None]:
    """While a stage runs, what it has put into the cache is in no dvc.lock yet, so nobody may clear the cache of what
    none names. The system ends this with the process, however that ends."""
    with _cache_lock() as stream:
        with contextlib.suppress(OSError):  # a file system without locks; there the cache is never cleared either
            fcntl.flock(stream, fcntl.LOCK_SH)
        yield


@contextlib.contextmanager
def cache_alone() -> Iterator[bool]:
    """Whether no stage works with the cache; if so, none begins to until the block is left."""
    with _cache_lock() as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True


@contextlib.contextmanager
def _cache_lock() -> Iterator[IO[bytes]]:
    path = refit_home() / "cache" / "in-use.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as stream:
        yield stream


@contextlib.contextmanager
def _repo(path: Path) -> Iterator[Any]:
    """DVC's repository object. Its own errors become ours; what a stage said is in failure.json."""
    from dvc.exceptions import DvcException  # 0.6 s to import, which `refit --help` need not pay
    from dvc.lock import LockError
    from dvc.repo import Repo
    from dvc.rwlock import RWLockFileCorruptedError

    logging.getLogger("dvc").setLevel(logging.ERROR)  # "Running stage …", "Updating lock file …": we say it ourselves
    try:
        with Repo(str(path), config=_dvc_remote()) as repo:
            yield repo
    except (LockError, RWLockFileCorruptedError) as error:
        raise TransientError(
            f"The run {path.name} is busy: {error}.", fix="wait for its other stage, then run again"
        ) from error
    except DvcException as error:
        raise _explain_dvc(path, error) from error
    except sqlite3.OperationalError as error:  # DVC's own notes on files
        if "is full" not in str(error):
            raise
        raise TransientError(
            f"No space is left for DVC's database ({error}).",
            fix="free disk space or set REFIT_HOME to another disk",
        ) from error


def _dvc_remote() -> dict[str, Any] | None:
    if (shared := workspaces()) is None:
        return None
    return {"core": {"remote": "workspaces"}, "remote": {"workspaces": {"url": shared.cache}}}


def _bring(run: Run, wanted: Collection[str]) -> None:
    """Have the outputs here that the lock names and that lie at, in or around the wanted paths.

    Raises `DataError` if one is gone, `TransientError` if the store does not answer.
    """
    lock = yaml.safe_load((run.path / "dvc.lock").read_text()) if (run.path / "dvc.lock").exists() else {"stages": {}}
    from pipeline.remote import kept_by_dvc

    kept = kept_by_dvc(run.path)
    targets = set()
    for output in (output["path"] for stage in lock["stages"].values() for output in stage.get("outs", ())):
        if output.startswith(tuple(f"{path}/" for path in kept)) or output in kept:
            for path in map(PurePosixPath, wanted):
                if PurePosixPath(output).is_relative_to(path):
                    targets.add(output)
                elif path.is_relative_to(output):
                    targets.add(path.as_posix())
    if targets:
        with _using_cache(), _repo(run.path) as repo, contextlib.chdir(run.path):
            repo.fetch(targets=sorted(targets))
            repo.checkout(targets=sorted(targets), force=True)


def opened(run_id: str, wanted: Collection[str] = _TABLES) -> Run:
    """`find`, with outputs to be read here too: its tables, or those named."""
    run = find(run_id)
    if workspaces() is not None:
        _bring(run, wanted)
    return run


def newest_first(model: str | None) -> Iterator[Run]:
    """Runs of a model (None: of all) with their tables, one after the other as they are asked for."""
    for run in reversed(all_runs()):
        if model in (None, run.record["model"]):
            yield run if workspaces() is None else opened(run.run_id)


def bring_inputs(run: Run, target: str) -> None:
    """With execution.remote: have here what a stage (or promote) reads, what it adds to, and what the report shows."""
    if workspaces() is None:
        return
    name = _name(target)
    if name == PROMOTE:
        wanted = list(_PROMOTED)
    else:
        if name == "ingest":
            share_releases(run.record["model"])
        stage: dict[str, Any] = yaml.safe_load((run.path / "dvc.yaml").read_text())["stages"][name]
        wanted = [dep for dep in stage.get("deps", ()) if not dep.startswith(tuple(f"{code}/" for code in _CODE))]
        if name != "train":  # whose models DVC brings by itself if nothing has to be trained
            wanted += [out if isinstance(out, str) else next(iter(out)) for out in stage.get("outs", ())]
        if {"live.json", "warm_start.json"} & set(wanted):
            _bring_live(run)
    _bring(run, (*wanted, *_REPORTED))


def share_releases(model: str) -> None:
    """With execution.remote: what people have released from quarantine, on whichever machine."""
    if (shared := workspaces()) is not None:
        shared.share_lines(f"releases/{model}", releases.path(model))


def _bring_live(run: Run) -> None:
    live = files.read_json(run.path / "live.json")
    if live["path"] is not None and not (run.path / live["path"]).exists():
        registry(run.record["model"], run.params).fetch(live["version"])


def _hand_on(run: Run, target: str) -> None:
    """With execution.remote: let other machines have what a stage has made, and what makes repeating it needless."""
    if (shared := workspaces()) is None:
        return
    with _using_cache(), _repo(run.path) as repo, contextlib.chdir(run.path):
        repo.push(targets=[target], run_cache=True)
    if target == "ingest":
        shared.send_images(
            [*run.path.glob("data/manifest/[0-9]*.parquet"), *run.path.glob("data/quarantine/[0-9]*.parquet")],
            store.path,
        )


def _explain_dvc(path: Path, error: BaseException) -> RefitError:
    last, cause = error, cast(BaseException | None, error)
    while cause is not None:
        if isinstance(cause, OSError) and (known := explain(cause)) is not None:
            return known
        if "is busy" in str(cause):
            return TransientError(f"The run {path.name} is busy.", fix="wait for its other stage, then run again")
        exited = re.search(r"exited with (-?\d+)$", str(cause))
        if exited and (number := _signal(int(exited[1]))):
            if number == signal.SIGINT:
                raise KeyboardInterrupt  # DVC ignores it while a stage runs, so only the stage has felt it
            return TransientError(
                f"The stage's process was ended by signal {number}, from outside or for want of memory.",
                fix="run again, it continues there",
            )
        if exited and int(exited[1]) == TransientError.exit_status:
            # On a full disk the stage could not leave failure.json, only say it.
            return TransientError("The stage cannot go on now, as its last line says.", fix="mend that, then run again")
        last, cause = cause, cause.__cause__ or cause.__context__
    return DataError(
        f"DVC stopped with {type(last).__name__}: {last}.",
        fix="mend the cause that the lines above name",
    )


def _signal(status: int) -> int | None:
    """The signal that ended a process: -n from Python, 128 + n from the shell in between. None if none did."""
    return -status if status < 0 else status - 128 if status > 128 else None


def stage_names(run: Run) -> list[str]:
    """DVC's names of all stages, in an order in which they can be run: ingest, …, train@fold-0, …, gate."""
    graph: dict[str, Any] = yaml.safe_load((run.path / "dvc.yaml").read_text())["stages"]
    parts = run.params["train"]["parts"]
    return [target for name in graph for target in ([f"train@{part}" for part in parts] if name == "train" else [name])]


def reproduce(run: Run, target: str, *, force: bool = False) -> bool:
    """Bring one stage up to date with `dvc repro --single-item`; False if it was already.

    Raises the `RefitError` that the stage ended with. A stage that was killed leaves the run as it was before.
    """
    require_space()
    stop_stale(run, target)
    bring_inputs(run, target)
    (run.path / FAILURE).unlink(missing_ok=True)
    _done(run, target).unlink(missing_ok=True)
    try:
        with _using_cache(), _repo(run.path) as repo, contextlib.chdir(run.path):
            # Entries of the run cache come one by one, so only for what is dearest to repeat.
            pull = _name(target) == "train" and workspaces() is not None
            changed = bool(repo.reproduce(targets=[target], single_item=True, force=force, pull=pull))
    except TransientError:
        raise
    except RefitError as error:
        raise _stage_error(run) or error from None
    _hand_on(run, target)
    if changed:
        names = [_name(other) for other in stage_names(run)]
        for other in stage_names(run)[len(names) - names[::-1].index(_name(target)) :]:
            _done(run, other).unlink(missing_ok=True)  # what it was made from is no more
    files.write_text(_done(run, target), "")
    return changed


def _done(run: Run, target: str) -> Path:
    return run.path / DONE / target


def _name(target: str) -> str:
    return target.partition("@")[0]


def _stage_error(run: Run) -> RefitError | None:
    path = run.path / FAILURE
    if not path.exists():
        return None
    failure = files.read_json(path)
    known = {kind.exit_status: kind for kind in (RefitError, SettingsError, TransientError)}
    error = known.get(failure["exit_status"], RefitError)(failure["problem"], fix=failure["fix"])
    error.shown = True
    return error


def stop_stale(run: Run, target: str) -> None:
    """End processes of this stage that outlived the command that started them, so that two never write at once."""
    name, _, part = target.partition("@")
    for process in psutil.process_iter(["cmdline", "cwd"]):
        command = process.info["cmdline"] or []
        mine = f"components.{name}" in command and (not part or part in command)
        if mine and process.info["cwd"] == str(run.path):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
                process.wait(10)


def _alive(owner: Mapping[str, Any] | None) -> bool:
    """Whether the process that drives a run still exists (its number may have been given to another)."""
    if owner is None:
        return False
    try:
        return psutil.Process(owner["pid"]).create_time() == owner["started"]
    except psutil.NoSuchProcess:
        return False


def require_idle(run: Run) -> None:
    """Raises `TransientError` if a process works on `run`."""
    if _alive(run.record["owner"]):
        raise TransientError(
            f"The run {run.run_id} is being worked on by process {run.record['owner']['pid']}.", fix="wait for it"
        )


@contextlib.contextmanager
def driving(run: Run) -> Iterator[None]:
    """Record that this process works on `run`; what ends the block early is recorded as the run's status.

    Raises `TransientError` if another process does.
    """
    require_idle(run)
    # Held by processes that were killed; a process that got the number of one would look like its holder.
    (run.path / ".dvc/tmp/rwlock").unlink(missing_ok=True)
    me = psutil.Process()
    run.update(status=RUNNING, owner={"pid": me.pid, "started": me.create_time()})
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
