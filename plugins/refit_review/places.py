"""The runs of $REFIT_HOME and what of them may be read. Names come from URLs; nothing outside of a run is opened."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
REPORT = "report.html"
VALIDATION = "reports/validation/index.html"
DATA_DOCS = "reports/validation/data_docs"
CARD = "models/final/card.md"
_TRAINED = "done/train@final"  # of `refit`
# Pages, self-contained all of them, and the two texts that the page of the validation leads to.
_HTML = re.compile(rf"{re.escape(REPORT)}|reports/validation/index\.html|{DATA_DOCS}/[^\\\0]+\.html")
_TEXT = re.compile(r"reports/validation/(anomalies\.pbtxt|verdict\.json)")


@dataclass(frozen=True)
class Run:
    path: Path
    record: Mapping[str, Any]  # run.json; empty if it cannot be read

    @property
    def run_id(self) -> str:
        return self.path.name

    def file(self, name: str) -> Path | None:
        """The file of this name in the run; None if there is none, or it lies elsewhere, by whatever way."""
        parts = PurePosixPath(name).parts
        if not parts or "\0" in name or "\\" in name or any(part in {"..", "/"} for part in parts):
            return None
        path = self.path / name
        try:
            real = path.resolve(strict=True)
        except (OSError, RuntimeError, ValueError):
            return None
        return real if real.is_relative_to(self.path) and real.is_file() else None

    def page(self, name: str) -> tuple[Path, str] | None:
        """A page or text that may be shown, and its media type."""
        if _HTML.fullmatch(name):
            kind = "text/html"
        elif _TEXT.fullmatch(name):
            kind = "text/plain"
        else:
            return None
        path = self.file(name)
        return None if path is None else (path, kind)

    @property
    def has_trained(self) -> bool:
        """Whether the final model is the run's own. Each begins with that of the run before, its card included."""
        return self.file(_TRAINED) is not None

    @property
    def version(self) -> int | None:
        """The version that was made of the run's model, if it went live."""
        path = self.file("promotion.json")
        try:
            found = json.loads(path.read_text())["version"] if path else None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found if isinstance(found, int) else None

    def rows(self) -> list[str]:
        """Names of Great Expectations' pages, results first."""
        found = [path.relative_to(self.path).as_posix() for path in (self.path / DATA_DOCS).rglob("*.html")]
        named = sorted((name for name in found if PurePosixPath(name).name != "index.html"), reverse=True)
        return [name for name in named if self.page(name)]


def home() -> Path:
    return Path(os.environ.get("REFIT_HOME") or ".refit").absolute()


def params() -> dict[str, Any]:
    """params.yaml of this installation, by the rule of `refit`; empty if it cannot be read, which the DAGs tell."""
    own = home() / "params.yaml"
    try:
        found = yaml.safe_load((own if own.exists() else ROOT / "params.yaml").read_text())
    except (OSError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def safe_id(text: str) -> str:
    """The folder of a run, by the rule of `refit`; empty if there can be none."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", text).lstrip(".")[:128]


def find(run_id: str) -> Run | None:
    name = safe_id(run_id)
    return _read(name) if name else None


def newest() -> Iterator[Run]:
    """Runs that are complete enough to be listed, newest first."""
    try:
        names = [path.name for path in (home() / "runs").iterdir() if not path.name.startswith(".")]
    except OSError:
        return
    found = [run for name in names if (run := _read(name)) is not None and run.record]
    yield from sorted(found, key=lambda run: (str(run.record.get("created_at")), run.run_id), reverse=True)


def _read(name: str) -> Run | None:
    runs = home() / "runs"
    try:
        path = (runs / name).resolve(strict=True)
        if path.parent != runs.resolve() or not path.is_dir():  # a link to elsewhere is no run
            return None
    except (OSError, RuntimeError):
        return None
    try:
        record = json.loads((path / "run.json").read_text())
    except (OSError, ValueError):
        record = {}
    return Run(path, record if isinstance(record, dict) else {})
