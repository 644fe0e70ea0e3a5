"""The AWS configuration that leads to a store on loopback."""

from __future__ import annotations

import pytest


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
