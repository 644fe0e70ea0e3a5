"""The AWS configuration that leads to a store on loopback, and such a store."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import boto3
import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from tests.servers import running

App = Callable[[dict[str, Any], Any], Iterable[bytes]]


def configure(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """`address`: host:port."""
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{address}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)


def forget(address: str) -> None:
    """Empty all of moto's stores, which are one for the whole process."""
    with urllib.request.urlopen(urllib.request.Request(f"http://{address}/moto-api/reset", method="POST"), timeout=10):
        pass


class _Quiet(MotoRequestHandler):
    def log(self, *_: object) -> None:
        pass


@contextmanager
def one_at_a_time(around: Callable[[App], App] = lambda app: app) -> Iterator[str]:
    """Yield the address (host:port) of moto's S3, which answers one request after the other.

    Moto looks whether an object exists and writes it in two steps (5.2), so that of two conditional writes at once
    both may succeed; S3 itself does it in one. `around` wraps the application, to spoil or to watch requests.
    """
    lock = threading.Lock()
    inner = around(DomainDispatcherApplication(create_backend_app))

    def app(environ: dict[str, Any], start: Any) -> list[bytes]:
        with lock:
            return list(inner(environ, start))

    with _serving(app) as address:
        yield address


def new_bucket() -> str:
    """The name of an empty bucket that no other test has, in the store that the AWS configuration leads to."""
    name = f"models-{uuid4().hex}"
    client = boto3.Session().client("s3")
    client.create_bucket(Bucket=name)
    client.close()
    return name


@contextmanager
def one_bucket(monkeypatch: pytest.MonkeyPatch, name: str) -> Iterator[Any]:
    """Yield a client of an S3 store with the bucket `name` alone, which the AWS configuration leads to."""
    with one_at_a_time() as address:
        configure(monkeypatch, address)
        client = boto3.Session().client("s3")
        client.create_bucket(Bucket=name)
        yield client
        client.close()
        forget(address)


@contextmanager
def at_once() -> Iterator[str]:
    """Yield the address (host:port) of moto's services, which answer requests while others wait, as long polls do."""
    with _serving(DomainDispatcherApplication(create_backend_app)) as address:
        yield address


@contextmanager
def _serving(app: App) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Quiet)
    with running(server):
        yield f"127.0.0.1:{server.server_port}"
