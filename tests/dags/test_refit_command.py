"""The operators against a real process that stands in for `refit`."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import process_command
import process_death
import psutil
import pytest
from airflow.sdk.exceptions import AirflowSkipException, AirflowTaskTimeout
from airflow.sdk.execution_time.timeout import timeout
from process_command import ProcessCommand
from refit_command import RefitFailure, TransientFailure, tasks

OPERATORS = tasks(ProcessCommand)
StartRun, RunStage, RunCommand = OPERATORS.StartRun, OPERATORS.RunStage, OPERATORS.RunCommand


@pytest.fixture
def refit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """refit(body): from now on `refit` is a Python script with this body; gives the folder where it runs."""

    def install(body: str) -> Path:
        script = tmp_path / "refit"
        script.write_text(
            f"#!{sys.executable}\nimport json, os, signal, sys, time\nos.chdir({str(tmp_path)!r})\n{body}\n"
        )
        script.chmod(0o755)
        return tmp_path

    monkeypatch.setattr(process_command, "REFIT", tmp_path / "refit")
    return install


def run(operator: Any, **context: Any) -> Any:
    # As the task runner calls it; the class method itself refuses calls from elsewhere.
    return ProcessCommand.execute.__wrapped__(operator, {"run_id": "manual__1+00:00", **context})


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("sys.exit(99)", AirflowSkipException),
        ("sys.exit(75)", TransientFailure),
        ("os.kill(os.getpid(), signal.SIGKILL)", TransientFailure),
        ("sys.exit(128 + signal.SIGTERM)", TransientFailure),
        ("sys.exit(65)", RefitFailure),
        ("sys.exit(78)", RefitFailure),
        ("raise RuntimeError", RefitFailure),
    ],
    ids=["nothing new", "transient", "killed", "child killed", "bad data", "bad settings", "bug"],
)
def test_exit_statuses(body: str, expected: type[Exception], refit: Callable[[str], Path]) -> None:
    refit(body)
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the exact class is what is tested
        run(RunStage(task_id="ingest", stage="ingest"))
    assert type(caught.value) is expected


def test_the_failure_repeats_the_error_line(refit: Callable[[str], Path]) -> None:
    refit("print('error: Too few images. Fix: add some', file=sys.stderr); print('later'); sys.exit(65)")
    with pytest.raises(RefitFailure, match=r"refit stage ended with status 65: error: Too few images\. Fix: add some$"):
        run(RunStage(task_id="shard", stage="shard"))


def test_start_hands_over_params_unharmed_and_gives_the_parts(refit: Callable[[str], Path]) -> None:
    folder = refit("json.dump(sys.argv[1:], open('got', 'w')); print('Hi'); print(json.dumps({'parts': ['a', 'b']}))")
    params = {"source": "-x $(touch pwned) {{ 7*7 }}; '", "set": ["train.seed=1 && false", "shard.salt=`id`"]}
    assert run(StartRun(task_id="start"), params=params) == ["a", "b"]
    assert json.loads((folder / "got").read_text()) == [
        "start",
        "--run-id=manual__1+00:00",
        "--source=-x $(touch pwned) {{ 7*7 }}; '",
        "--set=train.seed=1 && false",
        "--set=shard.salt=`id`",
    ]
    assert not (folder / "pwned").exists()


def test_without_a_source_params_yaml_decides(refit: Callable[[str], Path]) -> None:
    refit("assert sys.argv[1:] == ['start', '--run-id=manual__1+00:00'], sys.argv; print('{\"parts\": []}')")
    assert run(StartRun(task_id="start"), params={"source": None, "set": []}) == []


@pytest.mark.parametrize("line", ["", "Done.", "{}", '["a"]'], ids=["silent", "words", "no parts", "no object"])
def test_start_without_parts_is_an_error(line: str, refit: Callable[[str], Path]) -> None:
    refit(f"print({line!r})")
    with pytest.raises(RefitFailure, match="Expected refit start to end with"):
        run(StartRun(task_id="start"), params={"source": None, "set": []})


def test_a_stage_names_its_part(refit: Callable[[str], Path]) -> None:
    expected = ["stage", "train", "--part=fold-0", "--run-id=manual__1+00:00"]
    refit(f"assert sys.argv[1:] == {expected!r}, sys.argv")
    run(RunStage(task_id="train", stage="train", part="fold-0"))


def test_much_output_on_both_streams_does_not_block(refit: Callable[[str], Path]) -> None:
    refit("for _ in range(5000): print('x' * 100); print('y' * 100, file=sys.stderr)\nprint('{\"parts\": [\"z\"]}')")
    assert run(StartRun(task_id="start"), params={"source": None, "set": []}) == ["z"]


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        (
            'print("Hello"); print(json.dumps({"promote": True, "body": "# A\\nb"}))',
            {"promote": True, "body": "# A\nb"},
        ),
        ('print(json.dumps({"early": 1})); print("Done.")', None),
        ("print([1])", None),
        ("pass", None),
        ("print(json.dumps({'a': 1})); print('{\"b\": 2}', file=sys.stderr)", {"a": 1}),
    ],
    ids=["object", "not last", "list", "silent", "stderr does not count"],
)
def test_a_task_returns_the_json_object_on_the_last_line(
    printed: str, expected: dict[str, Any] | None, refit: Callable[[str], Path]
) -> None:
    refit(printed)
    assert run(RunStage(task_id="gate", stage="gate")) == expected


def test_options_and_arguments_are_templates_and_stay_single_arguments(refit: Callable[[str], Path]) -> None:
    folder = refit("json.dump(sys.argv[1:], open('got', 'w'))")
    context = {"run_id": "r", "value": {"by": "me; touch x", "at": None}, "params": {"reason": "as before.sh"}}
    stage = RunStage(task_id="promote", stage="promote", options=["--approval", "{{ value | tojson }}"])
    stage.render_template_fields(context)
    run(stage, **context)
    got = json.loads((folder / "got").read_text())
    assert got[:-1] == ["stage", "promote", "--run-id=r", "--approval"]
    assert json.loads(got[-1]) == context["value"]

    command = RunCommand(task_id="rollback", arguments=["rollback", "--reason", "{{ params.reason }}"])
    command.render_template_fields(context)
    run(command, **context)
    assert json.loads((folder / "got").read_text()) == ["rollback", "--reason", "as before.sh"]


def test_on_kill_ends_the_command(refit: Callable[[str], Path]) -> None:
    folder = refit("open('pid', 'w').write(str(os.getpid())); os.rename('pid', 'ready'); time.sleep(60)")
    operator = RunStage(task_id="train", stage="train", part="final")
    failure: list[BaseException] = []

    def work() -> None:
        try:
            run(operator)
        except TransientFailure as error:
            failure.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    deadline = time.monotonic() + 20
    while not (folder / "ready").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    operator.on_kill()
    worker.join(20)
    assert failure
    assert not psutil.pid_exists(int((folder / "ready").read_text()))


@pytest.mark.parametrize(
    "hang",
    [
        "time.sleep(60)",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)",
        "os.fork() or signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)",
        "os.close(1); os.close(2); time.sleep(60)",
    ],
    ids=["silent", "ignores SIGTERM", "its child ignores SIGTERM", "closed streams"],
)
def test_a_timeout_stops_a_command_that_hangs(
    hang: str, refit: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_death, "GRACE_SECONDS", 0.5)
    folder = refit(f"open('pid', 'w').write(str(os.getpid()))\n{hang}")
    operator = RunStage(task_id="train", stage="train", part="final")
    begin = time.monotonic()
    with pytest.raises(AirflowTaskTimeout), timeout(2):
        run(operator)
    assert time.monotonic() - begin < 30
    assert not psutil.pid_exists(int((folder / "pid").read_text()))
