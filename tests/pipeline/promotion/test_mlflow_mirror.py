"""The mirror, against a real MLflow server (`make test-mlflow`), and how it meets servers that are none."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import RefitError, TransientError
from pipeline.promotion.folder_storage import FolderStorage
from pipeline.promotion.mlflow_mirror import Server, mirror
from pipeline.promotion.opening import open_registry
from pipeline.promotion.promote import promote
from pipeline.promotion.registry import Registry
from tests.pipeline.promotion.finished_run import finished_run
from tests.servers import free_ports, running

TOKEN = {"Authorization": "Bearer secret"}


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    found = Registry(FolderStorage(tmp_path / "registry"))
    promote(finished_run(tmp_path / "r1", "a"), found)
    return found


@contextmanager
def answering(status: int, body: bytes) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """The address of a server that always answers so, and the headers of what it was asked."""
    seen: list[dict[str, str]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(dict(self.headers))
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self.headers["Content-Length"] = "0"
            self.do_POST()

        def log_message(self, *_: object) -> None:
            pass

    with running(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield f"http://127.0.0.1:{server.server_port}", seen


@pytest.mark.parametrize(
    ("status", "body", "error", "problem"),
    [
        (200, b"<html>Please sign in</html>", TransientError, "did not answer as MLflow does"),
        (200, b"[]", TransientError, "expected a JSON object, got list"),
        (503, b"", TransientError, "503"),
        (401, b"no", RefitError, "MLFLOW_TRACKING_TOKEN"),
        (400, b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "bad"}', RefitError, "INVALID_PARAMETER_VALUE"),
    ],
    ids=["a page", "a list", "down", "not let in", "refused"],
)
def test_a_server_that_does_not_do_its_part_is_explained(
    registry: Registry, status: int, body: bytes, error: type[RefitError], problem: str
) -> None:
    with answering(status, body) as (uri, seen), pytest.raises(RefitError, match=problem) as raised:
        mirror(registry, "pets", Server(uri, TOKEN))
    assert type(raised.value) is error
    assert raised.value.fix
    assert [headers["Authorization"] for headers in seen] == ["Bearer secret"]


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"model_versions": null}',
        b'{"model_versions": ["1"]}',
        b'{"model_versions": [{"version": "x"}]}',
        b'{"model_version": []}',
    ],
)
def test_json_that_is_not_mlflows_is_no_answer(registry: Registry, body: bytes) -> None:
    with answering(200, body) as (uri, _), pytest.raises(TransientError, match="did not answer as MLflow does"):
        mirror(registry, "pets", Server(uri, {}))


def test_a_server_that_is_not_there_is_explained(registry: Registry) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(TransientError, match="Connection refused"):
            mirror(registry, "pets", Server(uri, {}))


def test_before_the_first_promotion_nothing_is_told(tmp_path: Path) -> None:
    assert mirror(Registry(FolderStorage(tmp_path / "empty")), "pets", Server("http://127.0.0.1:9", {})) is None


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real MLflow server; its command is in $MLFLOW, or on the path."""
    command = os.environ.get("MLFLOW") or shutil.which("mlflow")
    if command is None:
        pytest.skip("no mlflow command; `make test-mlflow` installs one")
    home = tmp_path_factory.mktemp("mlflow")
    [port] = free_ports(1)
    arguments = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    places = ["--backend-store-uri", f"sqlite:///{home}/mlflow.db", "--artifacts-destination", f"{home}/artifacts"]
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    with (home / "log").open("wb") as log:
        server = subprocess.Popen(
            [command, *arguments, *places],
            stdout=log, stderr=log, cwd=home, env=environment, start_new_session=True,
        )  # fmt: skip
    uri = f"http://127.0.0.1:{port}"
    try:
        _wait(uri, server, home / "log")
        yield uri
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _wait(uri: str, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(240):
        try:
            with urllib.request.urlopen(f"{uri}/health", timeout=5):
                return
        except OSError:
            if server.poll() is not None:
                break
            time.sleep(0.5)
    raise RuntimeError(log.read_text())


def _get(uri: str, path: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{uri}/api/2.0/mlflow/{path}", timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def _aliased(uri: str, model: str) -> dict[str, Any]:
    found: dict[str, Any] = _get(uri, f"registered-models/alias?name={model}&alias=live")["model_version"]
    return found


def _tags(version: dict[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in version["tags"]}


@pytest.mark.mlflow
def test_mlflow_follows_the_pointer_forward_and_back(mlflow: str, tmp_path: Path, bucket: str) -> None:
    registry = open_registry(f"s3://{bucket}/models", "pets")
    server = Server(f"{mlflow}/", {})
    promote(finished_run(tmp_path / "r1", "a"), registry)
    assert mirror(registry, "pets", server) == 1
    first = _aliased(mlflow, "pets")
    assert first["source"] == f"s3://{bucket}/models/pets/1"
    assert first["description"] == "Promote: better."
    assert _tags(first) == {
        "refit.version": "1",
        "refit.run": "r1",
        "refit.digest": registry.history()[0]["digest"],
        "refit.accuracy": "0.900 [0.820, 0.970]",
        "refit.balanced_accuracy": "0.700 [0.600, 0.800]",
    }

    promote(finished_run(tmp_path / "r2", "b", generation=1), registry)
    for _ in range(2):
        assert mirror(registry, "pets", server) == 2
    assert _tags(_aliased(mlflow, "pets"))["refit.version"] == "2"

    registry.move_live(1, expected_generation=2, reason="worse", kind="rollback")
    assert mirror(registry, "pets", server) == 1
    assert _aliased(mlflow, "pets")["version"] == first["version"]
    assert len(_get(mlflow, "model-versions/search?filter=name%3D%27pets%27")["model_versions"]) == 2


@pytest.mark.mlflow
def test_a_version_in_a_folder_is_registered_by_its_place(mlflow: str, registry: Registry) -> None:
    """MLflow refuses paths that are local to it."""
    assert mirror(registry, "signs", Server(mlflow, {})) == 1
    assert _aliased(mlflow, "signs")["source"] == f"refit:{registry.uri(1)}"


@pytest.mark.mlflow
def test_what_mlflow_missed_is_made_up_for(mlflow: str, tmp_path: Path, registry: Registry) -> None:
    with pytest.raises(TransientError):
        mirror(registry, "late", Server("http://127.0.0.1:9", {}))
    promote(finished_run(tmp_path / "r2", "b", generation=1), registry)
    assert mirror(registry, "late", Server(mlflow, {})) == 2
    assert _tags(_aliased(mlflow, "late"))["refit.run"] == "r2"
