"""Tells an MLflow registry which version is live, through its REST API (docs/adr/0023 says why not its client).

https://mlflow.org/docs/latest/api_reference/rest-api.html. Our registry stays the one that decides: this only follows
its pointer, and can be repeated at any time.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pipeline.errors import RefitError, TransientError
from pipeline.promotion.card import metrics_of
from pipeline.promotion.card_text import figure
from pipeline.promotion.registry import LIVE, Registry

_TIMEOUT = 10  # seconds without a byte; a promotion waits for it
_LIMIT = 16 * 2**20  # bytes of an answer
_ATTEMPTS = 5
_EXISTS = "RESOURCE_ALREADY_EXISTS"


@dataclass(frozen=True)
class Server:
    """`uri`: http(s)://host[:port][/prefix]; `headers`: what each request carries to be let in."""

    uri: str
    headers: Mapping[str, str]


class _RefusedError(Exception):
    """The server's own answer; `code` is MLflow's name of the error."""

    def __init__(self, code: str, message: str):
        super().__init__(f"{code}: {message}")
        self.code = code


def mirror(registry: Registry, model: str, server: Server) -> int | None:
    """Register the live version with MLflow, if it is not there, and set MLflow's alias `live` to it.

    Returns the live version, None if there is none. Raises `TransientError` if the server does not answer and
    `RefitError` if it refuses.
    """
    try:
        for _ in range(_ATTEMPTS):
            live = registry.pointer()
            if live.version is None:
                return None
            _register(registry, model, live.version, str(live.digest), server)
            if registry.pointer() == live:  # else another has moved it meanwhile, and may have been overtaken by us
                return live.version
    except _RefusedError as error:
        raise RefitError(
            f"registry.mlflow_uri: {server.uri} refused {model!r} ({error}).",
            fix="check MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD; then "
            "refit models mirror",
        ) from None
    raise TransientError("The live pointer moves faster than MLflow can be told.", fix="refit models mirror")


def _register(registry: Registry, model: str, version: int, digest: str, server: Server) -> None:
    try:
        _call(server, "POST", "registered-models/create", {"name": model})
    except _RefusedError as error:
        if error.code != _EXISTS:
            raise
    wanted = f"name='{model}' and tags.`refit.version`='{version}' and tags.`refit.digest`='{digest}'"
    answer = _call(server, "GET", "model-versions/search", {"filter": wanted})
    with _understood(server):
        there = min((int(row["version"]) for row in answer.get("model_versions", [])), default=None)
    if there is None:
        body = _description(registry, model, version, digest)
        answer = _call(server, "POST", "model-versions/create", body)
        with _understood(server):
            there = int(answer["model_version"]["version"])
    _call(server, "POST", "registered-models/alias", {"name": model, "alias": LIVE, "version": str(there)})


@contextmanager
def _understood(server: Server) -> Iterator[None]:
    """Around the reading of an answer: JSON of another form, as a proxy may give, is none of MLflow's."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _unanswered(server, ValueError(f"unexpected JSON, {type(error).__name__}: {error}")) from None


def _description(registry: Registry, model: str, version: int, digest: str) -> dict[str, Any]:
    card = registry.card(version)
    figures = metrics_of(card["test"])
    tags = {
        "refit.version": str(version),
        "refit.digest": digest,
        "refit.run": str(card["run_id"]),
        **{f"refit.{name}": figure(figures[name]) for name in ("accuracy", "balanced_accuracy") if name in figures},
    }
    return {
        "name": model,
        "source": _source(registry.uri(version)),
        "description": (card.get("decision") or {}).get("summary", ""),
        "tags": [{"key": key, "value": value} for key, value in tags.items()],
    }


def _source(uri: str) -> str:
    """MLflow refuses paths that are local to it; a folder is named, so that a person can find it."""
    return uri if "://" in uri else f"refit:{uri}"


def _call(server: Server, method: str, path: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    url = f"{server.uri.rstrip('/')}/api/2.0/mlflow/{path}"
    data = None
    if method == "GET":
        url = f"{url}?{urllib.parse.urlencode(fields)}"
    else:
        data = json.dumps(fields).encode()
    headers = {"Content-Type": "application/json", **server.headers}
    request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310 - settings allow http(s) only
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310
            return _object(answer.read(_LIMIT))
    except urllib.error.HTTPError as error:
        with error:
            raise _said(server, error) from None
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        raise _unanswered(server, error) from None


def _object(body: bytes) -> dict[str, Any]:
    """Raises `ValueError` for what is no JSON object, such as a login page."""
    value = json.loads(body or b"{}")
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, got {type(value).__name__}")
    return value


def _said(server: Server, error: urllib.error.HTTPError) -> Exception:
    if error.code >= 500 or error.code == 429:
        return _unanswered(server, error)
    try:
        said = _object(error.read(_LIMIT))
    except (ValueError, OSError):
        said = {}
    return _RefusedError(str(said.get("error_code", error.code)), str(said.get("message", error.reason)))


def _unanswered(server: Server, error: Exception) -> TransientError:
    return TransientError(
        f"registry.mlflow_uri: {server.uri} did not answer as MLflow does ({error}).",
        fix="check the address and the server, then refit models mirror",
    )
