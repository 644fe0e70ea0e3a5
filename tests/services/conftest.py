from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.services import backends
from tests.services.backends import Service


@pytest.fixture
def postgres() -> Iterator[tuple[Service, str]]:
    with backends.postgres() as started:
        yield started


@pytest.fixture
def redis_server() -> Iterator[tuple[Service, str]]:
    with backends.redis_server() as started:
        yield started
