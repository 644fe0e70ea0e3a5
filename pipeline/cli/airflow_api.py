"""The calls of Airflow's REST API that answer a question of a run. Secrets are sent and never shown."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote, urlencode, urlsplit

from pipeline.errors import RefitError, SettingsError, TransientError

EMBEDDED_USER = "admin"
URL, TOKEN, USER, PASSWORD_FILE = (
    "REFIT_AIRFLOW_URL",
    "REFIT_AIRFLOW_TOKEN",
    "REFIT_AIRFLOW_USER",
    "REFIT_AIRFLOW_PASSWORD_FILE",
)
_CREDENTIALS = f"set {TOKEN}, or {USER} and {PASSWORD_FILE}"
_TIMEOUT = 30  # seconds
_LIMIT = 16 << 20  # bytes of one answer
_PAGE = 100


@dataclass(frozen=True)
class Login:
    """A token, or a user and the file with the password; a file as the embedded Airflow has maps users to passwords."""

    token: str | None = field(default=None, repr=False)
    user: str | None = None
    password_file: Path | None = None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the token to wherever it leads."""

    def redirect_request(self, *arguments: Any, **keywords: Any) -> None:
        return None


class Airflow:
    """A session. Raises `TransientError` if the server does not answer, `RefitError` with what it said otherwise."""

    def __init__(self, url: str, login: Login) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is not None:
            raise SettingsError(
                f"{URL}: expected an address such as https://airflow.example.org, without a login in it.",
                fix="set it to the address at which the browser shows Airflow",
            )
        self.url = url.rstrip("/")
        here = parts.hostname in {"127.0.0.1", "localhost", "::1"}
        proxies = [urllib.request.ProxyHandler({})] if here else []
        self._opener = urllib.request.build_opener(_NoRedirects, *proxies)
        self._token: str | None = None
        self._token = login.token or self._log_in(login)

    def questions(self, dag_id: str, task_id: str) -> list[dict[str, Any]]:
        """Of all runs, newest first, answered or not."""
        found: list[dict[str, Any]] = []
        while True:
            query = {"task_id": task_id, "order_by": "-created_at", "limit": _PAGE, "offset": len(found)}
            page = self._call("GET", f"/api/v2/dags/{quote(dag_id, '')}/dagRuns/~/hitlDetails?{urlencode(query)}")
            found += page["hitl_details"]
            if not page["hitl_details"] or len(found) >= page["total_entries"]:
                return found

    def answer(self, dag_id: str, run_id: str, task_id: str, option: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        place = f"/api/v2/dags/{quote(dag_id, '')}/dagRuns/{quote(run_id, '')}/taskInstances/{quote(task_id, '')}"
        body = {"chosen_options": [option], "params_input": dict(fields)}
        return self._call("PATCH", f"{place}/-1/hitlDetails", body)

    def _log_in(self, login: Login) -> str:
        if login.user is None or login.password_file is None:
            raise SettingsError(f"No credentials for Airflow at {self.url} were given.", fix=_CREDENTIALS)
        body = {"username": login.user, "password": _password(login.user, login.password_file)}
        return str(self._call("POST", "/auth/token", body)["access_token"])

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None if body is None else json.dumps(body).encode()
        try:
            request = urllib.request.Request(self.url + path, data, headers, method=method)  # noqa: S310 - http(s) only
            with self._opener.open(request, timeout=_TIMEOUT) as answer:
                found = json.loads(answer.read(_LIMIT))
                if not isinstance(found, dict):
                    raise ValueError("no JSON object")
                return found
        except urllib.error.HTTPError as error:
            with error:
                self._explain(error)
        except ValueError as error:
            # Headers that cannot be sent are shown by their error, the token among them.
            raise RefitError(f"What answers at {self.url} is no Airflow API.", fix=f"check {URL} and {TOKEN}") from (
                error if isinstance(error, json.JSONDecodeError) else None
            )
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            reason = getattr(error, "reason", None) or type(error).__name__
            raise TransientError(
                f"Airflow at {self.url} does not answer ({reason}).", fix=f"start it, or correct {URL}"
            ) from None

    def _explain(self, error: urllib.error.HTTPError) -> NoReturn:
        said = _detail(error)
        if error.code == 401:
            raise RefitError(f"Airflow at {self.url} does not accept the credentials ({said}).", fix=_CREDENTIALS)
        if error.code == 403:
            raise RefitError(
                f"Airflow at {self.url} does not let this user answer ({said}).", fix="ask somebody who may"
            )
        if error.code == 409:
            raise RefitError("This run has been answered meanwhile.", fix="`refit models` and its report say how")
        if error.code in {429, 502, 503, 504}:
            raise TransientError(f"Airflow at {self.url} is not ready ({error.code}).", fix="try again")
        if 300 <= error.code < 400:
            raise RefitError(
                f"Airflow at {self.url} redirects, which is not followed with credentials.", fix=f"correct {URL}"
            )
        raise RefitError(f"Airflow at {self.url} answered {error.code} ({said}).", fix=f"check {URL} and the run's id")


def _password(user: str, path: Path) -> str:
    try:
        text = path.read_text()
    except OSError as error:
        raise SettingsError(f"{PASSWORD_FILE}: {path} cannot be read ({error.strerror}).", fix="check it") from None
    try:
        known = json.loads(text)
    except ValueError:
        known = None
    if not isinstance(known, dict):
        return text.rstrip("\r\n")
    if not isinstance(known.get(user), str):
        raise SettingsError(f"{PASSWORD_FILE}: {path} has no password of {user!r}.", fix=f"set {USER} to another")
    return str(known[user])


def _detail(error: urllib.error.HTTPError) -> str:
    try:
        found = json.loads(error.read(_LIMIT))
        return str(found["detail"])[:300]
    except (ValueError, KeyError, TypeError, OSError):
        return str(error.reason)
