"""A Docker engine for tests: the one that answers already, else a private one that root starts and ends.

Nothing of it is shared with another engine: socket, state and images lie in folders of its own, so that it is ended
by its process id alone. Images stay in `build/docker` between sessions.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import psutil
from docker.errors import DockerException

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "docker"
BASE = "refit-test-base:trixie"
TARGETS = ("airflow", "data", "train-cpu")  # train-gpu differs from train-cpu by CUDA's 4 GB
START_SECONDS = 120.0
FREE_BYTES = 25 << 30


class NoEngine(Exception):
    """The text says what is missing."""


@contextlib.contextmanager
def engine() -> Iterator[str]:
    """The address of an engine. Raises `NoEngine`."""
    address = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if _answers(address):
        yield address
        return
    daemon = shutil.which("dockerd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if daemon is None or os.geteuid() != 0:
        raise NoEngine(f"No Docker engine answers at {address}; starting one takes root and the package docker.io.")
    BUILD.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(BUILD).free) < FREE_BYTES:
        raise NoEngine(f"The images take {FREE_BYTES >> 30} GB while they are built; {BUILD} has {free >> 30}.")
    # A path of a socket has at most 108 bytes.
    with (
        tempfile.TemporaryDirectory(prefix="refit-docker-", ignore_cleanup_errors=True) as folder,
        _daemon(daemon, Path(folder)) as address,
    ):
        yield address


@contextlib.contextmanager
def _daemon(program: str, folder: Path) -> Iterator[str]:
    address = f"unix://{folder}/socket"
    state = [f"--data-root={BUILD}/state", f"--exec-root={folder}/exec", f"--pidfile={folder}/pid"]
    log = BUILD / "dockerd.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [program, f"--host={address}", *state], stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(address):
            if process.poll() is not None or time.monotonic() > deadline:
                raise NoEngine(f"dockerd does not start here; the end of {log}:\n{log.read_text()[-1500:]}")
            time.sleep(0.2)
        yield address
    finally:
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.terminate()
        process.wait(60)
        for child in children:  # containerd, and what a test that failed left running
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()


def _answers(address: str) -> bool:
    if address.startswith("unix://"):  # docker-py leaves a socket open that nobody listens to
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(address.removeprefix("unix://")):
                return False
    try:
        with contextlib.closing(docker.DockerClient(base_url=address, timeout=5)) as client:
            return bool(client.ping())
    except (DockerException, OSError):  # the latter: it takes long to answer
        return False


def build_images(address: str, targets: tuple[str, ...]) -> None:
    """`make images` for these targets; layers that are there already cost a second."""
    base = base_image(address)
    done = subprocess.run(
        [
            "make",
            "images",
            f"IMAGES={' '.join(targets)}",
            f"DOCKER={_client()}",
            f"BUILD_ARGS=--network host --build-arg BASE_IMAGE={base}",
        ],
        cwd=ROOT,
        env={**os.environ, "DOCKER_HOST": address},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"make images ended with {done.returncode}:\n{done.stdout[-4000:]}")


def _client() -> str:
    """A docker command that can build with BuildKit: by its plugin, or one old enough to do it itself."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    found = [path for folder in folders if (path := shutil.which("docker", path=folder))]
    for path in found:
        version = subprocess.run([path, "--version"], stdout=subprocess.PIPE, text=True, check=False).stdout
        major = int("".join(filter(str.isdigit, version.partition(".")[0])) or 0)
        plugin = subprocess.run([path, "buildx", "version"], capture_output=True, check=False)
        if plugin.returncode == 0 or major < 23:
            return path
    raise NoEngine("No docker command with BuildKit: install the package docker.io or docker-buildx-plugin.")


def base_image(address: str) -> str:
    """$BASE_IMAGE, or a Debian 13 made here, as an image registry may be out of reach."""
    if given := os.environ.get("BASE_IMAGE"):
        return given
    with contextlib.closing(docker.DockerClient(base_url=address)) as client:
        if client.images.list(BASE):
            return BASE
        if shutil.which("debootstrap") is None:
            raise NoEngine("Without BASE_IMAGE, the package debootstrap makes the base of the images.")
        BUILD.mkdir(parents=True, exist_ok=True)
        tree, archive = BUILD / "debian", BUILD / "debian.tar"
        # stdout is long; on failure debootstrap says more in its own log.
        command = ["debootstrap", "--variant=minbase", "trixie", str(tree)]
        for attempt in range(3):  # it gives up at the first package that the network keeps back
            shutil.rmtree(tree, ignore_errors=True)
            if subprocess.run(command, stdout=subprocess.DEVNULL, check=attempt == 2).returncode == 0:
                break
        ours, theirs = Path("/usr/local/share/ca-certificates"), tree / "usr/local/share/ca-certificates"
        if ours.is_dir():
            shutil.copytree(ours, theirs, dirs_exist_ok=True)
        subprocess.run(["tar", "--directory", str(tree), "--create", "--file", str(archive), "."], check=True)
        repository, _, tag = BASE.partition(":")
        client.api.import_image_from_file(str(archive), repository=repository, tag=tag)
        shutil.rmtree(tree)
        archive.unlink()
    return BASE
