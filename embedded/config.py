"""The settings, secrets and environment of the local Airflow, each file readable by its owner only."""

from __future__ import annotations

import base64
import configparser
import contextlib
import json
import os
import secrets
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
DEFAULT_PORT = 8080
USER = "admin"
MARK = "REFIT_EMBEDDED"  # environment variable that every process of one server inherits; its value is the home


Sections = Mapping[str, Mapping[str, object]]


def write(airflow: Path, dags: Path, port: int, url: str, overrides: Sections) -> None:
    """Write airflow.cfg, which is the only place of settings: nothing secret is in the environment."""
    keys = _secrets(airflow)
    sections: dict[str, dict[str, object]] = {
        "core": {
            "dags_folder": dags,
            "plugins_folder": ROOT / "plugins",
            "executor": "LocalExecutor",
            "parallelism": 4,
            "load_examples": False,
            "fernet_key": keys["fernet"],
            "simple_auth_manager_users": f"{USER}:admin",
            "simple_auth_manager_passwords_file": airflow / "passwords.json",
            # The default asks the name server for this machine's full name, which can take seconds.
            "hostname_callable": "socket.gethostname",
        },
        "database": {"sql_alchemy_conn": f"sqlite:///{airflow / 'airflow.db'}"},
        "api": {
            "host": HOST,
            "port": port,
            "base_url": url,
            "workers": 1,
            "secret_key": keys["session"],
            "instance_name": "Refit",
        },
        "api_auth": {"jwt_secret": keys["jwt"], "jwt_issuer": "refit"},
        "scheduler": {"scheduler_idle_sleep_time": 0.3, "task_instance_heartbeat_timeout": 60},
        # A worker notices only at a heartbeat that its task has ended: with the usual 5 s, four tasks of half a second
        # each filled all workers. As many failures in a row as before take 15 s.
        "workers": {"min_heartbeat_interval": 1, "max_failed_heartbeats": 15},
        "dag_processor": {
            "dag_bundle_storage_path": airflow / "bundles",
            "parsing_processes": 1,
            "min_file_process_interval": 10,
            "refresh_interval": 10,
            "print_stats_interval": 0,
        },
        "logging": {
            "base_log_folder": airflow / "logs",
            "dag_processor_child_process_log_directory": airflow / "logs" / "dag_processor",
            "uvicorn_logging_level": "WARNING",
            "colored_console_log": False,
        },
    }
    for section, options in overrides.items():
        sections[section] = {**sections.get(section, {}), **options}
    config = configparser.ConfigParser(interpolation=None)
    for section, options in sections.items():
        # Airflow interpolates, so a percent sign in a path has to be doubled.
        config[section] = {key: str(value).replace("%", "%%") for key, value in options.items()}
    with private(airflow / "airflow.cfg") as stream:
        config.write(stream)


def _secrets(airflow: Path) -> dict[str, str]:
    """Keys of this server, drawn once: the Fernet key must stay, or stored connections become unreadable."""
    path = airflow / "secrets.json"
    if not path.exists():
        keys = {
            "jwt": secrets.token_urlsafe(96),
            "session": secrets.token_urlsafe(48),
            "fernet": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        }
        with private(path) as stream:
            json.dump(keys, stream)
    content: dict[str, str] = json.loads(path.read_text())
    return content


def password_of(airflow: Path) -> str:
    """Of the user `USER`, drawn once."""
    path = airflow / "passwords.json"
    if not path.exists():
        with private(path) as stream:
            json.dump({USER: secrets.token_urlsafe(12)}, stream)
    return str(json.loads(path.read_text())[USER])


@contextlib.contextmanager
def private(path: Path) -> Iterator[Any]:
    """A text stream whose file appears whole at `path`, readable by its owner only."""
    temporary = path.with_name(f".tmp-{path.name}")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        yield stream
    temporary.replace(path)


def environment_of(home: Path, airflow: Path) -> dict[str, str]:
    """This process's environment without any Airflow setting, which would go before airflow.cfg."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")}
    direct = ",".join(filter(None, [inherited.get("NO_PROXY") or inherited.get("no_proxy"), HOST, "localhost"]))
    return {
        **inherited,
        "AIRFLOW_HOME": str(airflow),
        "REFIT_HOME": str(home),
        MARK: str(airflow),
        "NO_PROXY": direct,
        "no_proxy": direct,
    }


def importing(environment: dict[str, str], folder: Path) -> dict[str, str]:
    """A copy of `environment` in which Python finds the modules of `folder`."""
    return {**environment, "PYTHONPATH": os.pathsep.join(filter(None, [str(folder), environment.get("PYTHONPATH")]))}


def free_port() -> int:
    """The usual port, or a free one where it is taken."""
    for port in (DEFAULT_PORT, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((HOST, port))
                return int(probe.getsockname()[1])
    raise OSError(f"No free port on {HOST}.")
