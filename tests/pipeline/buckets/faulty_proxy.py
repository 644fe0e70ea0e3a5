"""An HTTP proxy in front of an S3 server, which spoils chosen answers on the way back."""

from __future__ import annotations

import http.client
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.servers import running

SILENCE = 1.5  # seconds


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    sent: int | None = None  # so many bytes of the body before the connection is cut; None: all of them


Fault = Callable[[Answer], Answer | None]  # None: no answer at all


def refused(status: int, code: str, answer: Answer) -> Answer:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>".encode()
    return Answer(status, {"Content-Type": "application/xml", "Content-Length": str(len(body))}, body)


def with_header(name: str, value: str, answer: Answer) -> Answer:
    return replace(answer, headers=answer.headers | {name: value})


def cut(answer: Answer) -> Answer:
    return replace(answer, sent=len(answer.body) // 2)


def shortened(answer: Answer) -> Answer:
    body = answer.body[: len(answer.body) // 2]
    return replace(answer, body=body, headers=answer.headers | {"Content-Length": str(len(body))})


def corrupted(answer: Answer) -> Answer:
    return replace(answer, body=answer.body[:-1] + bytes([answer.body[-1] ^ 1]))


def web_page(answer: Answer) -> Answer:
    body = b"<html><body>Please sign in</body></html>"
    return Answer(200, {"Content-Type": "text/html", "Content-Length": str(len(body))}, body)


def silence(answer: Answer) -> None:
    threading.Event().wait(SILENCE)


slow_down: Fault = partial(refused, 503, "SlowDown")
altered_etag: Fault = partial(with_header, "ETag", '"00000000000000000000000000000000"')


class FaultyProxy:
    def __init__(self, upstream: str, url: str) -> None:
        self.upstream, self.url = upstream, url
        self.requests: list[str] = []  # path and query, in order of arrival
        self._pattern = ""
        self._faults: deque[Fault] = deque()
        self._lock = threading.Lock()

    def spoil(self, pattern: str, *faults: Fault, times: int = 1) -> None:
        """The next answers to requests with `pattern` in their path or query suffer `faults`, one after the other."""
        self._pattern, self._faults = pattern, deque(faults * times)

    def fault(self, path: str) -> Fault:
        with self._lock:
            self.requests.append(path)
            return self._faults.popleft() if self._faults and self._pattern in path else lambda answer: answer


@contextmanager
def faulty_proxy(upstream: str) -> Iterator[FaultyProxy]:
    """`upstream`: host:port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            connection = http.client.HTTPConnection(upstream)
            connection.request("GET", self.path, headers=dict(self.headers))
            with connection.getresponse() as response:
                answer = Answer(response.status, dict(response.getheaders()), response.read())
            connection.close()
            spoilt = proxy.fault(self.path)(answer)
            if spoilt is None:
                return
            self.send_response_only(spoilt.status)
            for name, value in spoilt.headers.items():
                if name.lower() != "connection":
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(spoilt.body[: spoilt.sent])

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    proxy = FaultyProxy(upstream, f"http://127.0.0.1:{server.server_port}")
    with running(server):
        yield proxy
