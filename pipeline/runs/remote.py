"""Run directories in a bucket, for machines that share no disk (docs/adr/0030).

A run's *state* is all of its directory but the outputs that DVC keeps: params, graph, code, lock, record, reports. It
is written as a row of files, `states/<run>/00000001.json` and so on, each on the condition that no other has taken its
number; the last one is the run's state. What it names lies in `files/<sha256>`, which comes first, so a state is there
whole or not at all. Of two machines that change one run at a time (folds), the second merges its changes into the
state of the first: file by file, and in `dvc.lock` and `run.json` entry by entry.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar, cast

import pyarrow.parquet as pq
import yaml

from pipeline import files, locks
from pipeline.buckets.bucket import Bucket
from pipeline.buckets.objects import Objects, remote
from pipeline.errors import DataError, TransientError
from pipeline.runs.outputs import LOCK, CachedOutputs, locked_stages
from pipeline.settings import code_root

RECORD, PARAMS = "run.json", "params.yaml"
_SYNCED = ".remote"  # beside the runs: what each was like when it last was the same here and there
_PARALLEL = Bucket.parallel_reads  # requests at once; most of each is waiting
_ATTEMPTS = 50  # as many machines may finish a part of one run at the same moment
_NOT_STATE = {".dvc", "checkpoints", "__pycache__"}  # a machine's own

_ABSENT: Any = object()

T = TypeVar("T")


@dataclass(frozen=True)
class State:
    """What a run's directory holds. `files`: digest by path; `lock`: dvc.lock by stage; `params`: the file's text."""

    files: Mapping[str, str]
    lock: Mapping[str, Any]
    record: Mapping[str, Any]
    params: str

    def as_json(self) -> bytes:
        value = {"files": self.files, "lock": self.lock, "record": self.record, "params": self.params}
        return (json.dumps(value, sort_keys=True, allow_nan=False) + "\n").encode()

    @staticmethod
    def from_json(body: bytes, origin: str) -> State:
        """Raises `DataError` for anything that is no state, or that would be written outside of a run's directory."""
        try:
            value = json.loads(body)
            state = State(dict(value["files"]), dict(value["lock"]), dict(value["record"]), str(value["params"]))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{origin} is no state of a run ({error!r}).", fix="restore it, or start a new run"
            ) from None
        for name, digest in state.files.items():
            parts = PurePosixPath(name).parts
            if not parts or PurePosixPath(name).is_absolute() or {"..", *_NOT_STATE} & set(parts):
                raise DataError(f"{origin} names the file {name!r}, which no run holds.", fix="start a new run")
            if not re.fullmatch("[0-9a-f]{64}", str(digest)):
                raise DataError(f"{origin} has no sha256 for {name!r}.", fix="start a new run")
        return state


EMPTY = State({}, {}, {}, "")


def merged(base: Mapping[str, T], mine: Mapping[str, T], theirs: Mapping[str, T], *, mine_first: bool) -> dict[str, T]:
    """Both sides' changes of `base`; where both changed the same entry, those of the side that goes first."""
    result: dict[str, T] = {}
    for name in {**base, **theirs, **mine}:
        was, here, there = (side.get(name, _ABSENT) for side in (base, mine, theirs))
        value = there if here == was else here if there == was or mine_first else there
        if value is not _ABSENT:
            result[name] = cast(T, value)
    return result


def merge(base: State, mine: State, theirs: State, *, mine_first: bool) -> State:
    def of(name: str) -> dict[str, Any]:
        return merged(getattr(base, name), getattr(mine, name), getattr(theirs, name), mine_first=mine_first)

    return State(of("files"), of("lock"), of("record"), theirs.params or mine.params)  # a run's params never change


def state_of(run: Path) -> State:
    """What the directory holds now; of one that another machine made and that is not here yet, only its record."""
    if not (run / "dvc.yaml").exists():
        record = files.read_json(run / RECORD) if (run / RECORD).exists() else {}
        return State({}, {}, record, "")
    cached = CachedOutputs.of(run)
    digests = {}
    for folder, folders, names in os.walk(run):  # other parts of the run may work in it: what goes away is passed over
        below = Path(folder).relative_to(run)
        folders[:] = [name for name in folders if _belongs(name) and (below / name).as_posix() not in cached]
        for path in (below / name for name in names if _belongs(name)):
            wanted = path.as_posix() not in {RECORD, PARAMS, LOCK} and path.as_posix() not in cached
            with contextlib.suppress(FileNotFoundError):
                if wanted and (run / path).is_file():
                    digests[path.as_posix()] = files.sha256(run / path)
    return State(digests, locked_stages(run), files.read_json(run / RECORD), (run / PARAMS).read_text())


def _belongs(name: str) -> bool:
    return not name.startswith(files.TEMPORARY_PREFIX) and name not in _NOT_STATE


@dataclass(frozen=True)
class Workspaces:
    """`objects` lie below execution.remote; run directories on this machine are in `folder`."""

    location: str
    objects: Objects
    folder: Path

    @property
    def cache(self) -> str:
        """Where DVC keeps outputs for all machines."""
        return f"{self.objects.base}/cache"

    def refresh(self) -> None:
        """Have the record and the params of every run here, which is enough to list them and to find a parent."""
        newest = self._generations()
        missing = [run for run, number in newest.items() if self._seen(run) < number]
        for run, state in zip(missing, _all(lambda run: self._read(run, newest[run]), missing), strict=True):
            with self._alone(run):
                path = self.folder / run
                if (path / "dvc.yaml").exists():
                    _, base = self._synced(run) or (0, EMPTY)
                    mine = files.read_json(path / RECORD) if (path / RECORD).exists() else {}
                    files.write_json(path / RECORD, merged(base.record, mine, state.record, mine_first=False))
                    files.write_text(self._listed(run), str(newest[run]))
                else:
                    path.mkdir(parents=True, exist_ok=True)
                    files.write_text(path / PARAMS, state.params)
                    files.write_json(path / RECORD, dict(state.record))
                    self._remember(run, newest[run], State({}, {}, state.record, state.params))

    def fetch(self, run: str) -> bool:
        """Bring a run's directory up to date; False if no machine has it. What was changed here alone stays."""
        generation = self._generations(f"{run}/").get(run)
        if generation is None:
            return False
        theirs = self._read(run, generation)
        with self._alone(run):
            path = self.folder / run
            mine = state_of(path)
            _, base = self._synced(run) or (0, EMPTY)
            self._apply(path, mine, merge(base, mine, theirs, mine_first=False))
            self._remember(run, generation, theirs)
        return True

    def publish(self, run: str) -> None:
        """Let other machines have what has changed here. Raises `TransientError` after too many lost races."""
        path = self.folder / run
        with self._alone(run):
            _, base = self._synced(run) or (0, EMPTY)
            mine = state_of(path)
            sent = set(base.files.values())
            for _ in range(_ATTEMPTS):
                generation = self._generations(f"{run}/").get(run, 0)
                theirs = self._read(run, generation) if generation else EMPTY
                target = merge(base, mine, theirs, mine_first=True)
                if target == theirs:
                    break
                self._send(path, mine, {*target.files.values()} - sent - set(theirs.files.values()))
                sent |= set(target.files.values())
                generation += 1
                if self.objects.create(_name(run, generation), target.as_json()):
                    break
            else:
                raise TransientError(
                    f"{self.objects.base}: {_ATTEMPTS} changes of the run {run} came before ours.", fix="run again"
                )
            self._apply(path, mine, target)
            self._remember(run, generation, target)

    def send_images(self, batches: Iterable[Path], path_of: Callable[[str], Path]) -> None:
        """Send the images that manifest and quarantine files name; a file whose images are all there is not opened.

        They lie where `dataset.store` looks for what it misses.
        """
        sent = set(self.objects.names("batches/"))
        for batch in batches:
            receipt = f"batches/{files.sha256(batch)}"
            if receipt not in sent:
                named = pq.read_table(batch, columns=["image_id"])["image_id"].to_pylist()
                here = [image for image in {*named} - {None} if path_of(image).exists()]  # else another machine has it
                _all(lambda image: self._send_image(image, path_of(image)), here)
                self._put(receipt, b"")

    def share_lines(self, name: str, path: Path) -> None:
        """Have what all machines have added to a file of JSON lines here, and what this one has added there.

        Each line has its moment as `at`, by which they are put in order.
        """
        own = path.read_bytes().splitlines() if path.exists() else []
        here = {hashlib.sha256(line).hexdigest(): line for line in own}
        there = {entry.rpartition("/")[2] for entry in self.objects.names(f"{name}/")}
        for digest in here.keys() - there:
            self._put(f"{name}/{digest}", here[digest])
        found = {digest: self.objects.read(f"{name}/{digest}") or b"" for digest in there - here.keys()}
        if lines := {digest: line for digest, line in found.items() if hashlib.sha256(line).hexdigest() == digest}:
            together = sorted({**here, **lines}.values(), key=lambda line: str(json.loads(line)["at"]))
            files.write_bytes(path, b"".join(line + b"\n" for line in together))

    def _send_image(self, image: str, path: Path) -> None:
        with path.open("rb") as stream:  # the store refuses other bytes than those it is named for
            self.objects.put(f"images/{image[:2]}/{image}", stream, bytes.fromhex(image))

    def _put(self, name: str, body: bytes) -> None:
        self.objects.put(name, BytesIO(body), hashlib.sha256(body).digest())

    def check(self) -> None:
        """Raises `SettingsError` if the store would let two machines take one number."""
        self.objects.check_conditions("states/.conditions")

    def _generations(self, below: str = "") -> dict[str, int]:
        """The number of the newest state by run."""
        newest: dict[str, int] = {}
        for name in self.objects.names(f"states/{below}"):
            if matched := re.fullmatch(r"states/([^/]+)/(\d{8})\.json", name):
                newest[matched[1]] = max(newest.get(matched[1], 0), int(matched[2]))
        return newest

    def _read(self, run: str, generation: int) -> State:
        name = _name(run, generation)
        body = self.objects.read(name)
        if body is None:
            raise TransientError(f"{self.objects.base}/{name} is gone after it was listed.", fix="run again")
        return State.from_json(body, f"{self.objects.base}/{name}")

    def _send(self, run: Path, mine: State, digests: Iterable[str]) -> None:
        wanted = set(digests)
        paths = {digest: run / name for name, digest in mine.files.items() if digest in wanted}

        def send(digest: str) -> None:
            body = paths[digest].read_bytes() if paths[digest].exists() else None
            if body is None or hashlib.sha256(body).hexdigest() != digest:
                raise TransientError(f"{paths[digest]} changed while it was being sent.", fix="run again")
            self._put(f"files/{digest}", body)

        _all(send, paths)

    def _apply(self, run: Path, mine: State, target: State) -> None:
        """Make the directory hold `target`; the record comes last, as a directory without one is no run."""
        changed = [name for name, digest in target.files.items() if mine.files.get(name) != digest]

        def bring(name: str) -> None:
            digest = target.files[name]
            own = code_root() / name  # most of a run is the code, which nearly always is our own
            if own.is_file() and files.sha256(own) == digest:
                body = own.read_bytes()
            elif (found := self.objects.read(f"files/{digest}")) is not None:
                body = found
            else:
                raise DataError(
                    f"{self.objects.base}/files/{digest} ({name} of the run {run.name}) is gone.", fix="start a new run"
                )
            if hashlib.sha256(body).hexdigest() != digest:
                raise TransientError(f"{self.objects.base}/files/{digest} is damaged.", fix="run again")
            files.write_bytes(run / name, body)

        run.mkdir(parents=True, exist_ok=True)
        _all(bring, changed)
        for name in mine.files.keys() - target.files.keys():
            (run / name).unlink(missing_ok=True)
        if target.lock != mine.lock:
            with _dvc_at_rest(run):  # another part may have ended here since `mine` was read
                stages = merged(mine.lock, locked_stages(run), target.lock, mine_first=True)
                content = {"schema": "2.0", "stages": stages}
                files.write_text(run / LOCK, yaml.safe_dump(content, sort_keys=False))
        if target.params != mine.params:
            files.write_text(run / PARAMS, target.params)
        if target.record != mine.record:
            now = files.read_json(run / RECORD) if (run / RECORD).exists() else {}
            files.write_json(run / RECORD, merged(mine.record, now, target.record, mine_first=True))

    def _seen(self, run: str) -> int:
        """The newest state whose record is here."""
        if not (self.folder / run).exists():
            return 0
        known = (self.folder / _SYNCED / f"{run}.json", self._listed(run))
        return max((int(path.read_bytes().partition(b"\n")[0]) for path in known if path.exists()), default=0)

    def _listed(self, run: str) -> Path:
        return self.folder / _SYNCED / f"{run}.listed"

    def _synced(self, run: str) -> tuple[int, State] | None:
        """The number and the state at which this machine and the bucket were last the same."""
        path = self.folder / _SYNCED / f"{run}.json"
        if not path.exists() or not (self.folder / run / "dvc.yaml").exists():
            return None
        number, _, body = path.read_bytes().partition(b"\n")
        return int(number), State.from_json(body, str(path))

    def _remember(self, run: str, generation: int, state: State) -> None:
        files.write_bytes(self.folder / _SYNCED / f"{run}.json", b"%d\n%b" % (generation, state.as_json()))

    @contextlib.contextmanager
    def _alone(self, run: str) -> Iterator[None]:
        """Of the processes of this machine; folds may run in one directory."""
        with locks.held(self.folder / _SYNCED / f"{run}.lock"):
            yield


@functools.cache  # and with it a client, which takes 0.1 s to make
def workspaces(location: str, folder: Path) -> Workspaces:
    """`location`: s3://bucket/prefix; `folder`: of the run directories. Touches nothing yet."""
    return Workspaces(location, remote(location), folder)


@contextlib.contextmanager
def _dvc_at_rest(run: Path) -> Iterator[None]:
    """DVC holds its lock while it writes dvc.lock, not while a stage runs."""
    from dvc.lock import make_lock

    path = run / ".dvc/tmp/lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with make_lock(str(path), wait=True):
        yield


def _name(run: str, generation: int) -> str:
    return f"states/{run}/{generation:08d}.json"


def _all(work: Callable[[Any], T], items: Iterable[Any]) -> list[T]:
    with ThreadPoolExecutor(_PARALLEL) as threads:
        return list(threads.map(work, items))
