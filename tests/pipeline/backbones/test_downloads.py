from __future__ import annotations

import hashlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.backbones import downloads
from pipeline.errors import ModelError
from tests.servers import running

BODY = b"weights" * 1000


class Server(ThreadingHTTPServer):
    body = BODY
    asked = 0


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked += 1
        if "missing" in self.path:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    monkeypatch.setenv("REFIT_HOME", str(tmp_path / "home"))
    with running(Server(("127.0.0.1", 0), Handler)) as made:
        monkeypatch.setattr(downloads, "BASE", f"http://127.0.0.1:{made.server_port}/tensorflow/keras-applications/")
        yield made


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_a_file_is_fetched_once_and_kept_with_its_digest(server: Server, tmp_path: Path, algorithm: str) -> None:
    digest = hashlib.new(algorithm, BODY).hexdigest()

    paths = {downloads.fetch("resnet/w.h5", digest) for _ in range(2)}

    assert paths == {tmp_path / "home/cache/weights/w.h5"}
    assert paths.pop().read_bytes() == BODY
    assert server.asked == 1


def test_a_damaged_copy_is_fetched_anew(server: Server, tmp_path: Path) -> None:
    digest = hashlib.md5(BODY).hexdigest()
    downloads.fetch("w.h5", digest).write_bytes(b"cut")

    assert downloads.fetch("w.h5", digest).read_bytes() == BODY
    assert server.asked == 2


@pytest.mark.parametrize("body", [BODY[::-1], BODY[:100]], ids=["altered", "cut short"])
def test_another_file_is_refused_and_not_kept(server: Server, tmp_path: Path, body: bytes) -> None:
    digest = hashlib.md5(BODY).hexdigest()
    server.body = body

    with pytest.raises(ModelError, match=rf"expected a file with the digest {digest}, got"):
        downloads.fetch("w.h5", digest)
    assert list((tmp_path / "home/cache/weights").iterdir()) == []


@pytest.mark.parametrize("failure", ["missing", "no server"])
def test_a_failed_download_says_what_to_do_instead(server: Server, failure: str) -> None:
    if failure == "no server":
        server.shutdown()
        server.server_close()

    with pytest.raises(
        ModelError, match=r"keras-applications/.*Fix: connect.*put the file at .*cache/weights/.*train\.weights"
    ):
        downloads.fetch("missing.h5" if failure == "missing" else "w.h5", "0" * 32)
