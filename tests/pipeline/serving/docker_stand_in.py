"""`docker`, as far as Refit calls it, where no daemon can be had: containers are processes that run `stand_in.py`.

`install` puts it on the path. State lies in a folder: `images` (names, one a line), `calls` (arguments, JSON lines)
and a file for each container.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


STAND_IN = Path(__file__).with_name("stand_in.py")


def install(folder: Path, patch: pytest.MonkeyPatch, *, images: tuple[str, ...]) -> None:
    """A `docker` that knows `images`; one whose name holds `broken` ends at once, `mute` never becomes ready."""
    (folder / "bin").mkdir(parents=True)
    script = folder / "bin/docker"
    script.write_text(f"#!{sys.executable}\n" + Path(__file__).read_text())
    script.chmod(0o755)
    (folder / "images").write_text("\n".join(images))
    patch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
    patch.setenv("DOCKER_STAND_IN", str(folder))
    patch.setenv("DOCKER_STAND_IN_SERVER", str(STAND_IN))


def containers(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.container"))


def calls(folder: Path) -> list[list[str]]:
    return [json.loads(line) for line in (folder / "calls").read_text().splitlines()]


def _state(folder: Path, name: str) -> dict[str, object]:
    return dict(json.loads((folder / f"{name}.container").read_text()))


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def version(folder: Path, arguments: list[str]) -> int:
    print("0.stand-in")
    return 0


def image(folder: Path, arguments: list[str]) -> int:
    return 0 if arguments[-1] in (folder / "images").read_text().split() else 1


def pull(folder: Path, arguments: list[str]) -> int:
    print("Error response from daemon: no such host", file=sys.stderr)
    return 1


def run(folder: Path, arguments: list[str]) -> int:
    options = dict(itertools.pairwise(arguments))
    name, source = options["--name"], dict(part.partition("=")[::2] for part in options["--mount"].split(","))["source"]
    served = folder / name
    served.mkdir()
    (served / "1").symlink_to(source)
    code = {
        "broken": "print('cannot open shared object'); raise SystemExit(127)",
        "mute": "import time; time.sleep(600)",
    }
    special = next((text for word, text in code.items() if word in arguments[-1]), None)
    server = [os.environ["DOCKER_STAND_IN_SERVER"], "candidate", str(served), "0"]
    command = [sys.executable, *(["-c", special] if special else server)]
    output = served / "log"
    process = subprocess.Popen(command, stdout=output.open("wb"), stderr=subprocess.STDOUT, start_new_session=True)
    while not special and not output.read_text().strip():
        if process.poll() is not None:
            return 125
    port = output.read_text().strip() if not special else "1"
    (folder / f"{name}.container").write_text(
        json.dumps({"pid": process.pid, "port": port, "label": options["--label"], "log": str(output)})
    )
    print(name)
    return 0


def port(folder: Path, arguments: list[str]) -> int:
    print(f"127.0.0.1:{_state(folder, arguments[0])['port']}")
    return 0


def inspect(folder: Path, arguments: list[str]) -> int:
    print("true" if _alive(int(str(_state(folder, arguments[-1])["pid"]))) else "false")
    return 0


def logs(folder: Path, arguments: list[str]) -> int:
    print(Path(str(_state(folder, arguments[-1])["log"])).read_text())
    return 0


def ps(folder: Path, arguments: list[str]) -> int:
    wanted = arguments[-1].removeprefix("label=")
    print("\n".join(name for name in containers(folder) if _state(folder, name)["label"] == wanted))
    return 0


def rm(folder: Path, arguments: list[str]) -> int:
    for name in arguments:
        path = folder / f"{name}.container"
        if path.exists():
            with contextlib.suppress(ProcessLookupError):  # it has ended, and been reaped
                os.kill(int(str(_state(folder, name)["pid"])), signal.SIGKILL)
            path.unlink()
    return 0


COMMANDS: dict[str, Callable[[Path, list[str]], int]] = {
    command.__name__: command for command in (version, image, pull, run, port, inspect, logs, ps, rm)
}

if __name__ == "__main__":
    place = Path(os.environ["DOCKER_STAND_IN"])
    with (place / "calls").open("a") as log:
        log.write(json.dumps(sys.argv[1:]) + "\n")
    raise SystemExit(COMMANDS[sys.argv[1]](place, sys.argv[2:]))
