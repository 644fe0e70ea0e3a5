"""New data, bursts and two triggers at once in a real Airflow: every file ends in a run, and none in two at once.

Starting, ingesting and looking for pending files are the real command's; the stages in between, of which nothing is
tested here, end at once or when the test lets them.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from embedded import server
from embedded.client import Client, DagRun
from tests.servers import running

pytestmark = pytest.mark.airflow

ROOT = Path(__file__).parents[2]
GRAPH = {  # the ends of the real graph
    "ingest": {"cmd": "ingest", "outs": ["data/manifest"]},
    "shard": {"cmd": "shard", "deps": ["data/manifest"], "outs": ["data/shards"]},
    "gate": {"cmd": "gate", "deps": ["data/shards"], "outs": ["decision.json"]},
}
REFIT = """\
#!{python}
import json, os, pathlib, sys, time
sys.path.insert(0, {root!r})
home = pathlib.Path(os.environ["REFIT_HOME"])
arguments = sys.argv[1:]
stage = arguments[1] if arguments[0] == "stage" else ""
options = dict(text[2:].partition("=")[::2] for text in arguments if text.startswith("--"))
if stage == "shard":
    while (home / "hold").exists():
        time.sleep(0.1)
elif stage == "gate":
    approval = {{"required": False, "why": "never"}}
    print(json.dumps({{"promote": True, "summary": "Promote.", "approval": approval, "body": "", "decision": ""}}))
elif stage == "promote":
    from pipeline import runs
    from tests.pipeline.promotion.models import go_live
    run = runs.find(options["run-id"])
    go_live(runs.registry(run.record["model"], run.params), home / "published", run.run_id)
    run.update(status="promoted")
    with (home / "promotions").open("a") as stream:
        print(run.run_id, run.record["fingerprint"], file=stream)
else:
    from pipeline.cli.main import app
    app(arguments)
"""


@dataclass
class Inbox:
    folder: Path
    number: int = 0
    names: set[str] = field(default_factory=set)

    def deliver(self, count: int) -> None:
        for _ in range(count):
            self.number += 1
            label = "cat" if self.number % 2 else "dog"
            path = self.folder / label / f"{self.number:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            buffer = io.BytesIO()
            Image.fromarray(np.random.default_rng(self.number).integers(0, 256, (8, 8, 3), np.uint8)).save(
                buffer, "PNG"
            )
            path.write_bytes(buffer.getvalue())
            self.names.add(path.name)


@dataclass
class Listener:
    """A web server that people are told through."""

    told: list[dict[str, Any]] = field(default_factory=list)
    port: int = 0


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    found = Listener()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    http = HTTPServer(("127.0.0.1", 0), Handler)
    found.port = http.server_port
    with running(http):
        yield found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("refit")


@pytest.fixture(scope="module")
def inbox(tmp_path_factory: pytest.TempPathFactory) -> Inbox:
    return Inbox(tmp_path_factory.mktemp("inbox"))


@pytest.fixture(scope="module")
def dags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The DAG folder beside the small graph, with the command above in the place of `refit`."""
    root = tmp_path_factory.mktemp("code")
    shutil.copytree(ROOT / "dags", root / "dags", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "plugins", root / "plugins") if (ROOT / "plugins").exists() else None
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": GRAPH}, sort_keys=False))
    command = root / "refit"
    command.write_text(REFIT.format(python=sys.executable, root=str(ROOT)))
    command.chmod(0o755)
    for path in (root / "dags").glob("*.py"):
        if re.search(r"^REFIT = ", text := path.read_text(), re.MULTILINE):
            path.write_text(re.sub(r"^REFIT = .*$", f"REFIT = Path({str(command)!r})", text, flags=re.MULTILINE))
    return root / "dags"


@pytest.fixture(scope="module")
def client(home: Path, dags: Path, inbox: Inbox, listener: Listener) -> Iterator[Client]:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["ingest"]["source"] = str(inbox.folder)
    params["execution"]["workers"] = 1
    params["airflow"] |= {"watch": "directory", "poll_seconds": 0.5, "quiet_seconds": 1, "at_most_seconds": 5}
    params["airflow"] |= {"deadline_hours": 0.002, "notify": {**params["airflow"]["notify"], "http": "told"}}
    (home / "params.yaml").write_text(yaml.safe_dump(params))
    inbox.folder.mkdir(exist_ok=True)
    try:
        with server.start(home, dags=dags).client() as client:
            client.add_connection("told", "http", host=f"http://127.0.0.1:{listener.port}")
            client.unpause("retrain")
            client.unpause("watch")
            yield client
    finally:
        server.stop(home)


def until(condition: Callable[[], Any], what: str, seconds: float = 240) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for: {what}"
        time.sleep(0.3)
    return found


def read(home: Path) -> set[str]:
    """Names of the files that are in the dataset of the newest run that was decided on."""
    decided = [line.split()[0] for line in (home / "promotions").read_text().splitlines()]
    newest = [home / "runs" / run for run in decided[-1:]]  # none in the moment in which the file is made
    batches = [pq.read_table(path) for run in newest for path in (run / "data/manifest").glob("*.parquet")]
    return {Path(uri).name for table in batches for uri in table["uri"].to_pylist()}


def idle(client: Client, seconds: float = 3) -> list[DagRun] | None:
    """All runs, if all have ended and no more come for a while: what was woken up meanwhile starts after that."""
    deadline = time.monotonic() + seconds
    while True:
        found = client.runs("retrain")
        if not found or not all(run.state in {"success", "failed"} for run in found):
            return None
        if time.monotonic() > deadline:
            return found
        time.sleep(0.5)


def one_after_the_other(found: list[DagRun]) -> bool:
    spans = sorted((run.start, run.end) for run in found if run.start and run.end)
    return all(earlier[1] <= later[0] for earlier, later in pairwise(spans))


def states(client: Client, run: DagRun) -> dict[str, str]:
    return {task.task_id: task.state for task in client.task_instances("retrain", run.run_id)}


@pytest.mark.timeout(420)
def test_every_file_of_a_burst_while_a_run_is_active_ends_in_a_run(
    client: Client, home: Path, inbox: Inbox, listener: Listener
) -> None:
    hold = home / "hold"
    hold.touch()
    inbox.deliver(4)
    [first] = until(lambda: client.runs("retrain"), "the watcher starts a run")
    assert first.kind == "asset_triggered"
    until(lambda: states(client, first).get("shard") == "running", "the first run has read the source")
    for _ in range(20):  # several events of the watcher, with pauses and without
        inbox.deliver(5)
        time.sleep(0.35)
    until(lambda: any(told["kind"] == "late" for told in listener.told), "somebody is told that the run is late")
    hold.unlink()
    until(lambda: (home / "promotions").exists() and read(home) == inbox.names, "all 104 files are in a run")
    found = until(lambda: idle(client), "the last run ends")

    assert {run.state for run in found} == {"success"}
    assert one_after_the_other(found)
    # The first read four files, the second the hundred; one more may have been woken up and found nothing.
    assert len(found) in {2, 3}
    promotions = [line.split()[1] for line in (home / "promotions").read_text().splitlines()]
    assert len(promotions) == len(set(promotions)) == 2

    def decisions() -> list[dict[str, Any]]:
        return [told for told in listener.told if told["kind"] == "decided"]

    until(lambda: len(decisions()) >= 2, "somebody is told of both")
    decided = decisions()
    assert len(decided) == 2
    assert decided[0]["what"] == "Promote."
    assert decided[0]["model"] == "classifier"
    assert decided[0]["link"].endswith(f"/dags/retrain/runs/{first.run_id.replace(':', '%3A').replace('+', '%2B')}")


@pytest.mark.timeout(420)
def test_of_two_triggers_at_once_the_second_waits_and_finds_nothing_new(client: Client, home: Path) -> None:
    """After the test above."""
    until(lambda: idle(client), "all is quiet")
    promoted = len((home / "promotions").read_text().splitlines())
    ids = {client.trigger("retrain", {"seed": 5}), client.trigger("retrain", {"seed": 5})}
    until(lambda: (found := idle(client)) and ids <= {run.run_id for run in found}, "both runs end")
    first, second = [run for run in client.runs("retrain") if run.run_id in ids]

    assert (first.state, second.state) == ("success", "success")
    first, second = sorted((first, second), key=lambda run: str(run.start))
    assert one_after_the_other([first, second])
    assert len((home / "promotions").read_text().splitlines()) == promoted + 1
    assert states(client, first)["promote"] == "success"
    assert states(client, second) == {"start": "success"} | dict.fromkeys(
        states(client, second).keys() - {"start"}, "skipped"
    )


def test_the_sweep_wakes_nobody_when_nothing_is_pending(client: Client) -> None:
    before = len(until(lambda: idle(client), "all is quiet"))
    run_id = client.trigger("watch", {})
    until(lambda: client.run_state("watch", run_id) == "success", "the sweep ends")
    [look] = client.task_instances("watch", run_id)
    assert look.state == "skipped"
    assert len(client.runs("retrain")) == before


def test_maintenance_cleans_up_and_checks(client: Client, home: Path) -> None:
    client.unpause("maintenance")
    run_id = client.trigger("maintenance", {})
    until(lambda: client.run_state("maintenance", run_id) in {"success", "failed"}, "maintenance ends")
    tasks = client.task_instances("maintenance", run_id)
    assert {task.task_id: task.state for task in tasks} == dict.fromkeys(
        ("retention", "verify_registry", "clean_database"), "success"
    ), [client.log("maintenance", run_id, task) for task in tasks if task.state != "success"]
    assert read(home)


@pytest.mark.parametrize(
    "params",
    [{"backbone": "resnet_50"}, {"input_size": "big"}, {"min_accuracy": 2}, {"set": ["nonsense"]}, {"folds": 1}],
    ids=lambda params: next(iter(params)),
)
def test_what_the_form_does_not_allow_starts_no_run(client: Client, params: dict[str, Any]) -> None:
    before = len(client.runs("retrain"))
    answer = client._http.post("/api/v2/dags/retrain/dagRuns", json={"logical_date": None, "conf": params})
    assert answer.status_code in {400, 422}, answer.text
    assert next(iter(params)) in answer.text
    assert len(client.runs("retrain")) == before
