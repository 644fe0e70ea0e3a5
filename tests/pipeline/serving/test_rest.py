"""The client side of TensorFlow Serving's REST, against `stand_in`, which runs in a process of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
import tensorflow as tf

from pipeline.serving import rest
from pipeline.serving.rest import NoAnswer
from pipeline.training import export
from tests.pipeline.serving import docker_stand_in
from tests.pipeline.training import tiny


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return tiny.pictures(5)[0]


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory, pictures: np.ndarray) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("served")
    export.save_serving(tiny.trained().whole, folder / "1", pictures)
    command = [sys.executable, str(docker_stand_in.STAND_IN), "tiny", str(folder), "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        number = int(server.stdout.readline())
        rest.wait(number, "tiny", limit=60.0, alive=lambda: server.poll() is None)
        yield number
        server.kill()


def test_pixels_and_files_get_the_answers_of_the_model(port: int, pictures: np.ndarray) -> None:
    expected = tiny.trained().whole.predict_on_batch(pictures)
    np.testing.assert_allclose(rest.by_image(port, "tiny", pictures), expected, atol=1e-5)
    files = [tf.io.encode_png(picture).numpy() for picture in pictures]
    np.testing.assert_allclose(rest.by_file(port, "tiny", files), expected, atol=1e-5)


def test_a_server_that_refuses_says_why(port: int, pictures: np.ndarray) -> None:
    with pytest.raises(NoAnswer, match=r"status 400.*uint8"):
        rest.by_image(port, "tiny", pictures / np.float32(255))
    with pytest.raises(NoAnswer, match="status 404"):
        rest.by_image(port, "other", pictures)
    with pytest.raises(NoAnswer, match="Signature encoded"):
        rest.by_file(port, "tiny", [b"no image"])


def test_waiting_ends_when_the_time_is_up_or_the_server_is_gone(port: int) -> None:
    with pytest.raises(NoAnswer, match=r"after 1 seconds.*404"):
        rest.wait(port, "other", limit=1.0, alive=lambda: True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = free.getsockname()[1]
    with pytest.raises(NoAnswer, match="ended before"):
        rest.wait(closed, "tiny", limit=60.0, alive=lambda: False)


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b'{"predictions": [[0.5, 0.5]]}', b'{"predictions": [["a"], ["b"]]}']
)
def test_an_answer_that_is_none_is_told(body: bytes) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, text: str, *arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        with pytest.raises(NoAnswer, match="Signature serving_default"):
            rest.by_image(server.server_port, "tiny", np.zeros((2, 4, 4, 3), np.uint8))
