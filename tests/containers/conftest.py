from __future__ import annotations

import contextlib
from collections.abc import Iterator

import docker
import pytest

import tests.dags.conftest  # noqa: F401 - gives Airflow a home, and leads to dags/
from tests.containers.engine import TARGETS, NoEngine, build_images, engine


@pytest.fixture(scope="session")
def engine_address() -> Iterator[str]:
    with contextlib.ExitStack() as stack:
        try:
            address = stack.enter_context(engine())
        except NoEngine as error:
            pytest.skip(str(error))
        yield address


@pytest.fixture(scope="session")
def images(engine_address: str) -> Iterator[docker.DockerClient]:
    """A client of an engine that has the images of this checkout."""
    build_images(engine_address, TARGETS)
    with contextlib.closing(docker.DockerClient(base_url=engine_address, timeout=120)) as client:
        yield client
