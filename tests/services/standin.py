"""A stand-in for `refit`, for tests of what happens around it, and a short graph of stages to run it in.

The stand-in notes in $REFIT_HOME/events.log what it begins and ends, and waits at a stage for as long as a file
$REFIT_HOME/hold/<stage> exists. Like `refit`, it ends when its standard input does.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
GRAPH = """\
stages:
  ingest: {desc: List, cmd: none, outs: [data/manifest]}
  train: {desc: Learn, matrix: {part: [fold-0, final]}, cmd: none, deps: [data/manifest], outs: ["models/${item}"]}
  gate: {desc: Decide, cmd: none, deps: [models], outs: [decision.json]}
"""
SCRIPT = """\
import json, os, pathlib, sys, threading, time

def stop_with_stdin():
    while os.read(0, 1024):
        pass
    os._exit(143)

if os.environ.get("REFIT_STOP_WITH_STDIN"):
    threading.Thread(target=stop_with_stdin, daemon=True).start()
home = pathlib.Path(os.environ["REFIT_HOME"])
arguments = [text for text in sys.argv[1:] if not text.startswith("--")]
part = [text.removeprefix("--part=") for text in sys.argv if text.startswith("--part=")]
name = "@".join([arguments[-1], *part])

def note(what):
    with (home / "events.log").open("a") as stream:
        stream.write(f"{what} {name} {os.getpid()}\\n")

note("begin")
while (home / "hold" / name).exists():
    time.sleep(0.05)
note("end")
if name == "start":
    print(json.dumps({"run_id": "x", "parts": ["fold-0", "final"]}))
elif name == "gate":
    approval = {"required": False, "why": "policy"}
    told = {"promote": True, "summary": "Better.", "approval": approval, "body": "", "decision": "0" * 64}
    print(json.dumps(told))
"""


def environment(folder: Path) -> str:
    """A Python beside which `refit` is the stand-in, and which has the packages of this one; gives its path."""
    (folder / "bin").mkdir(parents=True)
    real = Path(sys.prefix)
    (folder / "bin/python").symlink_to(Path(sys.executable).resolve())
    (folder / "lib").symlink_to(real / "lib")
    shutil.copyfile(real / "pyvenv.cfg", folder / "pyvenv.cfg")
    refit = folder / "bin/refit"
    refit.write_text(f"#!{sys.executable}\n{SCRIPT}")
    refit.chmod(0o755)
    return str(folder / "bin/python")


def project(folder: Path) -> Path:
    """The DAGs as they are, but on the short graph and with retries after five seconds; gives their folder."""
    shutil.copytree(ROOT / "dags", folder / "dags", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / "params.yaml", folder / "params.yaml")
    (folder / "dvc.yaml").write_text(GRAPH)
    defaults = folder / "dags/task_defaults.py"
    # After less, LocalExecutor may tell of the first try when the second is queued, and Airflow takes that for its end.
    text, delays = re.subn(r'("retry_delay": )timedelta\([^)]*\)', r"\1timedelta(seconds=5)", defaults.read_text())
    if delays != 1:
        raise ValueError(f"Expected one retry_delay in {defaults}, found {delays}.")
    defaults.write_text(text)
    return folder / "dags"


class Events:
    """What the stand-in noted, and where it is to wait."""

    def __init__(self, home: Path) -> None:
        self._log, self._hold = home / "events.log", home / "hold"
        self._hold.mkdir(parents=True, exist_ok=True)

    def hold(self, name: str) -> None:
        (self._hold / name).touch()

    def release(self, name: str) -> None:
        (self._hold / name).unlink()

    def pids(self, what: str, name: str) -> list[int]:
        """Of the processes that began or ended (`what`) stage `name`, in order."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        return [int(pid) for kind, stage, pid in map(str.split, lines) if (kind, stage) == (what, name)]

    def clear(self) -> None:
        self._log.unlink(missing_ok=True)
        for path in self._hold.iterdir():
            path.unlink()
