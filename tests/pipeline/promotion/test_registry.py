import multiprocessing
from pathlib import Path

import pytest

from pipeline.errors import ModelError, PromotionRefused
from pipeline.promotion.registry import CHECKSUMS, MODEL, Live, Registry


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry/classifier")


def content(folder: Path, text: str) -> dict[str, Path]:
    (folder / "variables").mkdir(parents=True, exist_ok=True)
    (folder / MODEL).write_text(text)
    (folder / "variables/index").write_text("i")
    return {MODEL: folder / MODEL, "variables": folder / "variables"}


def test_the_first_version_goes_live(registry: Registry, tmp_path: Path) -> None:
    assert registry.live() == Live(None, 0, None, None)
    version = registry.publish(content(tmp_path / "a", "weights"))
    live = registry.move_live(version, expected_generation=0, reason="first")
    assert (live.version, live.generation, live.path) == (1, 1, str(registry.root / "1"))
    assert (registry.root / "1/variables/index").read_text() == "i"
    [move] = registry.history()
    assert (move["previous"], move["version"], move["reason"]) == (None, 1, "first")


def test_publishing_the_same_model_again_gives_the_same_version(registry: Registry, tmp_path: Path) -> None:
    assert [registry.publish(content(tmp_path / name, name)) for name in ("a", "b", "a")] == [1, 2, 1]


def test_going_back_is_a_move_too(registry: Registry, tmp_path: Path) -> None:
    for generation, name in enumerate(("a", "b")):
        registry.move_live(
            registry.publish(content(tmp_path / name, name)), expected_generation=generation, reason=name
        )
    live = registry.move_live(1, expected_generation=2, reason="rollback: worse on Mondays")
    assert (live.version, live.generation) == (1, 3)
    assert [move["version"] for move in registry.history()] == [1, 2, 1]


def test_a_damaged_or_missing_version_never_goes_live(registry: Registry, tmp_path: Path) -> None:
    version = registry.publish(content(tmp_path / "a", "weights"))
    (registry.root / "1/variables/index").write_text("j")
    with pytest.raises(ModelError, match="variables/index"):
        registry.move_live(version, expected_generation=0, reason="")
    with pytest.raises(ModelError, match="there are: 1"):
        registry.move_live(7, expected_generation=0, reason="")
    assert registry.live().version is None


def test_a_decision_about_an_older_live_model_is_refused(registry: Registry, tmp_path: Path) -> None:
    version = registry.publish(content(tmp_path / "a", "weights"))
    registry.move_live(version, expected_generation=0, reason="")
    for stale in (0, 2):
        with pytest.raises(PromotionRefused, match="to 1"):
            registry.move_live(version, expected_generation=stale, reason="")
    assert len(registry.history()) == 1


def _race(root: str, version: int, barrier: object, results: object) -> None:
    barrier.wait()  # type: ignore[attr-defined]
    try:
        Registry(Path(root)).move_live(version, expected_generation=0, reason=f"racer {version}")
        results.put(version)  # type: ignore[attr-defined]
    except PromotionRefused:
        results.put(None)  # type: ignore[attr-defined]


def test_of_many_racing_promotions_exactly_one_wins(registry: Registry, tmp_path: Path) -> None:
    versions = [registry.publish(content(tmp_path / str(number), str(number))) for number in range(8)]
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(len(versions)), context.Queue()
    racers = [
        context.Process(target=_race, args=(str(registry.root), version, barrier, results)) for version in versions
    ]
    for racer in racers:
        racer.start()
    winners = [results.get(timeout=60) for _ in racers]
    for racer in racers:
        racer.join()
    assert [registry.live().version] == [version for version in winners if version is not None]
    assert len(registry.history()) == 1
    assert not list((registry.root / "live").glob(".tmp-*"))


def test_checksums_cover_every_file(registry: Registry, tmp_path: Path) -> None:
    registry.publish(content(tmp_path / "a", "weights"))
    assert f'"{MODEL}"' in (registry.root / "1" / CHECKSUMS).read_text()
    (registry.root / "1/extra").write_text("added later")
    with pytest.raises(ModelError, match="extra"):
        registry.verify(1)
