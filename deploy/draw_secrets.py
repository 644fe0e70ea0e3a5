"""Draw the secrets of compose.yaml into a folder: `python3 deploy/draw_secrets.py deploy/secrets`. Needs no package.

One file per secret, so that none is in the compose file or in the environment of a process. Files that exist are left
as they are: the Fernet key must stay, or stored connections become unreadable. To change a password, remove its file
and those made from it, and change it in the service too.
"""

from __future__ import annotations

import base64
import json
import secrets
import sys
from pathlib import Path

BUCKETS_USER = "refit"


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: draw_secrets.py FOLDER", file=sys.stderr)
        return 2
    folder = Path(sys.argv[1])
    # Containers of several users read the files, each as Docker mounts it: the folder keeps everyone else out.
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)

    postgres = _once(folder / "postgres_password", secrets.token_urlsafe(24))
    redis = _once(folder / "redis_password", secrets.token_urlsafe(24))
    _once(folder / "admin_password", secrets.token_urlsafe(12))
    _once(folder / "fernet_key", base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())
    _once(folder / "session_key", secrets.token_urlsafe(48))
    _once(folder / "jwt_secret", secrets.token_urlsafe(96))
    access, secret = _once(folder / "s3_keys", f"{secrets.token_hex(10)} {secrets.token_urlsafe(30)}").split()

    _once(folder / "database", f"postgresql+psycopg2://airflow:{postgres}@postgres:5432/airflow")
    _once(folder / "results", f"db+postgresql+psycopg2://airflow:{postgres}@postgres:5432/airflow")
    _once(folder / "broker", f"redis://:{redis}@redis:6379/0")
    _once(folder / "redis_config", f"requirepass {redis}\n")
    _once(folder / "aws", f"[default]\naws_access_key_id = {access}\naws_secret_access_key = {secret}\n")
    identity = {
        "name": BUCKETS_USER,
        "credentials": [{"accessKey": access, "secretKey": secret}],
        "actions": ["Read", "Write", "List", "Tagging", "Admin"],
    }
    _once(folder / "s3_config", json.dumps({"identities": [identity]}))
    print(f"Secrets are in {folder}; Airflow's user is admin, the password in {folder / 'admin_password'}.")
    return 0


def _once(path: Path, content: str) -> str:
    """Write a file if there is none; gives what it holds."""
    if not path.exists():
        path.write_text(content)
        path.chmod(0o444)
    return path.read_text()


if __name__ == "__main__":
    raise SystemExit(main())
