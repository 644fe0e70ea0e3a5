"""Draw the secrets of compose.yaml and derive its settings: `python3 deploy/prepare.py`. Needs no package.

Writes deploy/secrets, one file per secret, so that none is in the compose file or in the environment of a process, and
deploy/params.yaml, which is params.yaml with tasks in containers. What exists is left as it is: the Fernet key must
stay, or stored connections become unreadable, and the settings are yours to change.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Of params.yaml's section `execution`: where the engine is, and what is shared with the tasks' containers.
SETTINGS = {
    "mode": "docker",
    "url": "tcp://docker-proxy:2375",
    "home": "refit-home",
    "environment": "[AWS_ENDPOINT_URL_S3, AWS_DEFAULT_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY]",
    "network": "refit-tasks",
    "mounts": "[{source: refit-inbox, target: /inbox, read_only: true}]",
}


def main(folder: Path = HERE, params: Path = HERE.parent / "params.yaml") -> None:
    draw(folder / "secrets")
    _once(folder / "params.yaml", in_containers(params.read_text()), mode=0o644)
    print(f"Airflow's user is admin, the password in {folder / 'secrets/admin_password'}.")
    print(f"The settings are {folder / 'params.yaml'}: name your images' place in ingest.source, such as /inbox.")


def draw(folder: Path) -> None:
    """Secrets that fit each other."""
    # Containers of several users read the files, each as Docker mounts it: the folder keeps everyone else out.
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    postgres = _once(folder / "postgres_password", secrets.token_urlsafe(24))
    redis = _once(folder / "redis_config", f"requirepass {secrets.token_urlsafe(24)}\n").split()[1]
    access = _once(folder / "s3_access_key", secrets.token_hex(10))
    secret = _once(folder / "s3_secret_key", secrets.token_urlsafe(30))
    _once(folder / "admin_password", secrets.token_urlsafe(12))
    _once(folder / "fernet_key", base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())
    _once(folder / "session_key", secrets.token_urlsafe(48))
    _once(folder / "jwt_secret", secrets.token_urlsafe(96))
    _once(folder / "database", f"postgresql+psycopg2://airflow:{postgres}@postgres:5432/airflow")
    _once(folder / "results", f"db+postgresql+psycopg2://airflow:{postgres}@postgres:5432/airflow")
    _once(folder / "broker", f"redis://:{redis}@redis:6379/0")
    _once(folder / "aws", f"[default]\naws_access_key_id = {access}\naws_secret_access_key = {secret}\n")
    identity = {
        "name": "refit",
        "credentials": [{"accessKey": access, "secretKey": secret}],
        "actions": ["Read", "Write", "List", "Tagging", "Admin"],
    }
    _once(folder / "s3_config", json.dumps({"identities": [identity]}))


def in_containers(params: str) -> str:
    """params.yaml with `SETTINGS`. Raises `ValueError` if it lacks one of them."""
    head, found, rest = params.partition("\nexecution:")
    if not found:
        raise ValueError("Expected a section execution in params.yaml, found none.")
    # Up to the next section, or to the settings of pods, which have keys of the same names.
    section, following = re.split(r"(?=\n[a-z]\w*:|\n  kubernetes:)|\Z", rest, maxsplit=1)
    for key, value in SETTINGS.items():
        section, count = re.subn(rf"(?m)^( +{key}: ).*?(?= +#|$)", rf"\g<1>{value}", section)
        if count != 1:
            raise ValueError(f"Expected execution.{key} once in params.yaml, found it {count} times.")
    return head + found + section + following


def _once(path: Path, content: str, *, mode: int = 0o444) -> str:
    """Write a file if there is none; gives what it holds."""
    if not path.exists():
        path.write_text(content)
        path.chmod(mode)
    return path.read_text()


if __name__ == "__main__":
    main()
