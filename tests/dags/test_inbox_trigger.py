"""The directory watcher as the asyncio trigger that it is, on a real directory."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import inbox_trigger
import pytest
from inbox_trigger import InboxTrigger, Watch, digest, listing

POLL = 0.02


class Store:
    """The asset's state store, which outlives triggers."""

    def __init__(self) -> None:
        self.content: dict[str, Any] = {}

    async def aget(self, key: str, default: Any = None) -> Any:
        return self.content.get(key, default)

    async def aset(self, key: str, value: Any) -> None:
        self.content[key] = value


@asynccontextmanager
async def watching(
    inbox: Path, store: Store, *, quiet: float = 0.2, at_most: float = 60.0
) -> AsyncIterator[Callable[[float], Awaitable[dict[str, Any] | None]]]:
    """Yields `event(seconds)`: the payload of the next event, None if there is none for so long."""
    kwargs = InboxTrigger(
        directory=str(inbox), poll_seconds=POLL, quiet_seconds=quiet, at_most_seconds=at_most
    ).serialize()[1]
    trigger = InboxTrigger(**kwargs)  # as the triggerer makes it
    trigger.asset_state_store = store  # type: ignore[assignment]
    events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def pump() -> None:
        async for event in trigger.run():
            events.put_nowait(event.payload)

    task = asyncio.create_task(pump())

    async def event(seconds: float) -> dict[str, Any] | None:
        getting = asyncio.create_task(events.get())
        done, _ = await asyncio.wait({getting, task}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if task in done:
            task.result()
        if getting in done:
            return getting.result()
        getting.cancel()
        return None

    try:
        yield event
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Clock:
    """In place of the trigger's. It stands still while a test delivers, however long that takes on a busy machine."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.looks = 0

    def monotonic(self) -> float:
        self.looks += 1
        return self.now

    async def goes_on(self, seconds: float) -> None:
        """Once the trigger has seen what there is. Of two looks, the second began after this one."""
        seen = self.looks + 2
        while self.looks < seen:
            await asyncio.sleep(POLL)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(inbox_trigger, "time", clock)
    return clock


def deliver(inbox: Path, *names: str, content: bytes = b"x") -> None:
    for name in names:
        path = inbox / "cat" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def test_a_burst_of_100_files_is_one_event(tmp_path: Path, clock: Clock) -> None:
    async def scenario() -> None:
        async with watching(tmp_path, Store()) as event:
            await clock.goes_on(1)
            assert await event(0.1) is None, "an empty directory is no news"
            for number in range(100):
                deliver(tmp_path, f"{number:03}.png")
                await asyncio.sleep(0.003)
            await clock.goes_on(1)
            first = await event(5)
            assert first is not None
            assert (first["files"], first["new"], first["gone"]) == (100, 100, 0)
            assert first["examples"][0] == "cat/000.png"
            await clock.goes_on(1)
            assert await event(0.1) is None

    asyncio.run(scenario())


def test_a_growing_file_is_not_announced_before_it_is_whole(tmp_path: Path, clock: Clock) -> None:
    async def scenario() -> None:
        async with watching(tmp_path, Store(), quiet=0.3) as event:
            for size in range(1, 11):
                deliver(tmp_path, "growing.png", content=b"x" * size)
                await clock.goes_on(0.2)
                assert await event(0.05) is None
            await clock.goes_on(0.2)
            found = await event(5)
            assert found is not None
            assert found["examples"] == ["cat/growing.png"]

    asyncio.run(scenario())


def test_files_do_not_wait_for_ever_for_one_that_grows(tmp_path: Path, clock: Clock) -> None:
    async def scenario() -> None:
        async with watching(tmp_path, Store(), quiet=0.2, at_most=0.8) as event:
            deliver(tmp_path, "whole.png")
            found, size, begun = None, 0, clock.now
            while found is None:
                size += 1
                deliver(tmp_path, "growing.png", content=b"x" * size)
                await clock.goes_on(0.1)
                found = await event(0.05)
            assert 0.8 <= clock.now - begun < 1.2
            assert (found["files"], found["examples"]) == (1, ["cat/whole.png"])
            for _ in range(12):  # what has been announced is not announced again because another file grows
                size += 1
                deliver(tmp_path, "growing.png", content=b"x" * size)
                await clock.goes_on(0.1)
                assert await event(0.05) is None
            await clock.goes_on(0.2)
            found = await event(5)
            assert found is not None
            assert found["examples"] == ["cat/growing.png"]

    asyncio.run(scenario())


def test_after_a_restart_only_what_happened_meanwhile_is_news(tmp_path: Path) -> None:
    store = Store()

    async def first() -> None:
        async with watching(tmp_path, store) as event:
            deliver(tmp_path, "a.png", "b.png")
            assert await event(5) is not None
            await asyncio.sleep(5 * POLL)

    async def nothing_happened() -> None:
        async with watching(tmp_path, store) as event:
            assert await event(0.6) is None

    async def something_happened() -> None:
        async with watching(tmp_path, store) as event:
            assert await event(5) is not None

    asyncio.run(first())
    asyncio.run(nothing_happened())
    (tmp_path / "cat/b.png").unlink()
    asyncio.run(something_happened())


def test_an_event_that_died_with_the_triggerer_comes_again(tmp_path: Path) -> None:
    store = Store()

    async def dies_after_the_event() -> None:
        trigger = InboxTrigger(directory=str(tmp_path), poll_seconds=POLL, quiet_seconds=0, at_most_seconds=1)
        trigger.asset_state_store = store  # type: ignore[assignment]
        events = trigger.run()
        assert (await anext(events)).payload["new"] == 1
        await events.aclose()  # type: ignore[attr-defined]

    async def comes_again() -> None:
        async with watching(tmp_path, store) as event:
            assert await event(5) is not None

    deliver(tmp_path, "a.png")
    asyncio.run(dies_after_the_event())
    assert store.content == {}
    asyncio.run(comes_again())


def test_a_directory_that_is_away_for_a_while_is_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inbox = tmp_path / "mount"

    async def scenario() -> None:
        said = ""
        async with watching(inbox, Store()) as event:
            while "Cannot look into" not in said:
                assert await event(0.1) is None
                said += capsys.readouterr().out
            deliver(inbox, "a.png")
            assert await event(5) is not None
        assert (said + capsys.readouterr().out).count("Cannot look into") == 1

    asyncio.run(scenario())


def test_hidden_files_links_in_circles_and_odd_names(tmp_path: Path) -> None:
    deliver(tmp_path, "a.png", ".part", "b\n\xe4.png")
    deliver(tmp_path / ".hidden", "c.png")
    (tmp_path / "cat/self").symlink_to(tmp_path / "cat")
    (tmp_path / "cat/broken.png").symlink_to(tmp_path / "nowhere")
    with open(os.fsencode(tmp_path) + b"/cat/\xff.png", "w"):  # noqa: PTH123 - no str is that name
        pass
    found = listing(str(tmp_path))
    assert sorted(found) == ["cat/a.png", "cat/b\n\xe4.png", "cat/\udcff.png"]
    assert digest(found) == digest(dict(reversed(found.items())))
    assert digest(found) != digest({**found, "cat/a.png": (2, 1)})


def test_a_file_that_is_rewritten_while_it_is_known_starts_nothing_before_it_settles() -> None:
    watch = Watch(quiet_seconds=10, at_most_seconds=30)
    before = {"a": (1, 1), "b": (1, 1)}
    watch.look(before, 0)
    assert watch.look(before, 10) == before
    watch.confirm(before)
    for second in range(11, 60):
        assert watch.look({**before, "b": (second, second)}, second) is None
    assert watch.look({**before, "b": (59, 59)}, 69) == {**before, "b": (59, 59)}
