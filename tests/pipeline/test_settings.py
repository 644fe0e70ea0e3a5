import re
from pathlib import Path

import pytest

from pipeline.errors import SettingsError
from pipeline.settings import Phase, TopBlocks, code_root, load, params_file, parse, read_params, with_overrides

PARAMS = Path(__file__).parents[2] / "params.yaml"


def test_the_shipped_params_are_valid_and_every_key_has_a_comment() -> None:
    assert load(PARAMS).train.parts[-1] == "final"
    for line in PARAMS.read_text().splitlines():
        if line.startswith(" ") and not line.rstrip().endswith(":"):
            assert "#" in line, line


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.batch_sise=3", ["train.batch_sise", "did you mean train.batch_size"]),
        ("train.batch_size=many", ["train.batch_size", "integer", "'many'"]),
        ("train.head.dropout=1.5", ["train.head.dropout", "1.5"]),
        ("train.parts=[fold-0, final]", ["train.parts", "at least two folds"]),
        ("train.filters=[edges, sepia]", ["train.filters.1", "'grayscale', 'edges', 'contours' or 'clahe'", "'sepia'"]),
        ("train.filters=[clahe, edges, clahe]", ["train.filters: expected each filter at most once", "clahe"]),
        ("train.phases.tune.epoch=3", ["train.phases.tune.epoch", "did you mean train.phases.tune.epochs"]),
        ("train.phases.tune.unfreeze=half", ["train.phases.tune.unfreeze", "none, all, {top: number", "'half'"]),
        ("train.phases.finetune.learning_rate=fast", ["a number above 0 or find", "'fast'"]),
        ("train.phase.finetune.epochs=3", ["unknown key train.phase.finetune.epochs", "did you mean train.phases"]),
        ("shard.test_share=0.7", ["shard", "training"]),
        ("promote.model=../live", ["promote.model"]),
        ("train", ["section.key=value", "'train'"]),
        ("train.batch_size=[", ["not YAML"]),
    ],
)
def test_a_wrong_override_is_named_with_what_was_expected(override: str, words: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(with_overrides(read_params(PARAMS), [override]))
    for word in words:
        assert word in str(caught.value)


def test_an_unknown_key_in_the_file_is_named_with_the_closest_one(tmp_path: Path) -> None:
    wrong = tmp_path / "params.yaml"
    wrong.write_text(re.sub(r"(head:.*?)dropout", r"\1dropuot", PARAMS.read_text(), flags=re.DOTALL))
    with pytest.raises(SettingsError, match=r"train\.head\.dropuot, did you mean train\.head\.dropout"):
        load(wrong)


def test_phases_may_be_named_that_the_file_does_not_have() -> None:
    texts = ["train.phases.tune.unfreeze=all", "train.phases.tune.unfreeze.top=5", "train.phases.every.epochs=2"]

    phases = parse(with_overrides(read_params(PARAMS), texts)).train.phases

    assert phases == {"tune": Phase(unfreeze=TopBlocks(top=5)), "every": Phase(epochs=2)}


def test_overrides_change_a_copy_only() -> None:
    params = read_params(PARAMS)
    changed = with_overrides(params, ["train.seed=3", "validate.labels=[a, b]", "ingest.source=s3://b/p=q"])
    assert (changed["train"]["seed"], changed["validate"]["labels"]) == (3, ["a", "b"])
    assert changed["ingest"]["source"] == "s3://b/p=q"
    assert params == read_params(PARAMS)


@pytest.mark.parametrize("text", ["", "- a\n", "a: [", "ingest: 3\n"], ids=["empty", "list", "broken", "no-section"])
def test_a_file_that_is_no_params_file_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(SettingsError):
        load(tmp_path / "params.yaml")
    with pytest.raises(SettingsError, match="found none"):
        load(tmp_path / "absent.yaml")


def test_what_only_a_scheduler_uses_is_not_part_of_a_run(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("airflow: {schedule: '@daily'}\nexecution: {workers: 3, mode: docker, docker: {}}\n")
    assert read_params(path) == {"execution": {"workers": 3}}


def test_an_installation_s_own_params_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFIT_HOME", str(tmp_path))
    assert params_file() == code_root() / "params.yaml"
    (tmp_path / "params.yaml").write_text("")
    assert params_file() == tmp_path / "params.yaml"
