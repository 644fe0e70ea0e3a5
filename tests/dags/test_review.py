"""A retraining that a person approves in Airflow's pages, one that is rejected, and the way back, in a real browser."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from embedded import server
from embedded.client import Client
from embedded.config import USER
from pipeline.promotion.folder_storage import FolderStorage
from pipeline.promotion.registry import Registry
from tests.browser import CHROMIUM, Tab, chromium
from tests.dags.test_embedded import SETTINGS, directory, draw
from tests.pipeline.promotion.models import go_live

pytestmark = [pytest.mark.airflow, pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")]

ROOT = Path(__file__).parents[2]
PATIENCE = 420  # seconds; on a machine that does nothing else a retraining takes a minute
MODEL = "colours"
# React keeps what it has written itself, so the value is set below it.
TYPE = """(element, text) => {
  const prototype = element.tagName === "TEXTAREA" ? HTMLTextAreaElement.prototype : HTMLInputElement.prototype;
  Object.getOwnPropertyDescriptor(prototype, "value").set.call(element, text);
  element.dispatchEvent(new Event("input", { bubbles: true }));
}"""
FRAME = "document.querySelector('iframe')?.contentDocument"
REPORT = f"{FRAME}?.querySelector('iframe')?.contentDocument"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("refit")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("photos")
    draw(source, range(24))
    return source


@pytest.fixture(scope="module")
def client(home: Path) -> Iterator[Client]:
    started = server.start(home)
    try:
        with started.client() as client:
            for dag in ("retrain", "rollback"):
                client.unpause(dag)
            yield client
    finally:
        server.stop(home)


@pytest.fixture(scope="module")
def running(home: Path, client: Client) -> server.Server:
    found = server.running(home)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def tab(running: server.Server) -> Iterator[Tab]:
    """Signed in by the form, as a person does."""
    with chromium() as tab:
        tab.open(f"{running.url}/auth/login", width=1280)
        until(tab, "document.querySelectorAll('input').length >= 2")
        for name, text in (("username", USER), ("password", running.password)):
            tab.value(f"({TYPE})(document.querySelector('input[name={name}]'), {json.dumps(text)})")
        click(tab, "document.querySelector('button[type=submit]')")
        until(tab, "document.cookie.includes('_token=') || !location.pathname.startsWith('/auth')")
        yield tab


def until(tab: Tab, condition: str, patience: float = PATIENCE) -> Any:
    def value() -> Any:
        try:
            return tab.value(condition)
        except RuntimeError:  # the page is just giving way to another
            return None

    deadline = time.monotonic() + patience
    while not (found := value()):
        if time.monotonic() > deadline:
            shown = tab.value("document.body.innerText")
            raise TimeoutError(f"{condition} did not come true on {tab.value('location.href')}:\n{shown}")
        time.sleep(0.2)
    return found


def click(tab: Tab, element: str) -> None:
    # In one go: the page may put another in its place between two.
    until(tab, f"(found => !!found && !found.disabled && (found.click(), true))({element})")


def button(words: str, document: str = "document") -> str:
    return f"[...{document}.querySelectorAll('button')].find(found => found.textContent.trim() === {json.dumps(words)})"


def wait_for(client: Client, run_id: str, task: str, state: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        states = {found.task_id: found.state for found in client.task_instances("retrain", run_id)}
        if states.get(task) == state:
            return
        assert time.monotonic() < deadline, states
        assert "failed" not in states.values(), states
        time.sleep(0.5)


def wait_for_run(client: Client, run_id: str) -> str:
    deadline = time.monotonic() + PATIENCE
    while (state := client.run_state("retrain", run_id)) not in {"success", "failed"}:
        assert time.monotonic() < deadline, state
        time.sleep(0.5)
    return state


def registry(home: Path) -> Registry:
    return Registry(FolderStorage(home / "registry" / MODEL))


def refit(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from pipeline.cli.main import app; app()", *arguments]
    environment = {**os.environ, "REFIT_HOME": str(home), "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT)


@pytest.mark.timeout(600)
def test_a_model_goes_live_when_a_person_approves_it(
    tab: Tab, client: Client, running: server.Server, home: Path, source: Path
) -> None:
    run_id = client.trigger("retrain", {"source": str(source), "set": [*SETTINGS, "gate.approval=always"]})
    page = f"{running.url}/dags/retrain/runs/{run_id}"

    wait_for(client, run_id, "ingest", "success")
    tab.open(page, width=1280)
    click(tab, "[...document.querySelectorAll('a')].find(found => found.textContent.trim() === 'Report')")
    until(tab, f"{REPORT}?.body?.innerText.includes('In progress')")
    assert tab.value(f"{REPORT}.querySelector('h1').textContent") == "In progress"
    tab.open("about:blank", width=1280)  # a page that refreshes itself takes the time that the run needs

    wait_for(client, run_id, "approve", "awaiting_input")
    assert registry(home).pointer().version is None
    tab.open(f"{page}/tasks/approve/required_actions", width=1280, height=1400)
    until(tab, "document.body.innerText.includes('Why you are asked')")
    shown = tab.value("document.body.innerText")
    assert "gate.approval is always." in shown
    assert "accuracy floor" in shown
    assert tab.value("[...document.querySelectorAll('table')].length") >= 1
    until(tab, "!!document.querySelector('[name=element_reason]')")
    tab.value(f"({TYPE})(document.querySelector('[name=element_reason]'), 'Colours look right')")
    click(tab, button("Approve"))

    assert wait_for_run(client, run_id) == "success"
    [move] = registry(home).history()
    assert (move["version"], move["approval"]["by"], move["approval"]["reason"]) == (1, USER, "Colours look right")

    tab.open(f"{page}/plugin/report", width=1280)
    until(tab, f"{REPORT}?.body?.innerText.includes('Promoted: version 1 of colours is live')")
    assert "Colours look right" in tab.value(f"{REPORT}.body.innerText")
    tab.open(f"{running.url}/plugin/models", width=1280)
    until(tab, f"{FRAME}?.body?.innerText.includes('Version 1 is live.')")
    assert f"Approved by {USER}" in tab.value(f"{FRAME}.body.innerText")


@pytest.mark.timeout(600)
def test_a_model_that_is_rejected_leaves_everything_as_it_is(client: Client, home: Path, source: Path) -> None:
    draw(source, range(24, 30))
    # A few small images: whether the gate itself would refuse is chance.
    settings = [*SETTINGS, "gate.approval=always", "gate.min_gain=-1", "gate.min_gain_low=-1", "gate.max_class_loss=1"]
    run_id = client.trigger("retrain", {"source": str(source), "set": settings})
    wait_for(client, run_id, "approve", "awaiting_input")

    done = refit(home, "approve", run_id, "--reject", "--reason", "Too few nights")
    assert (done.returncode, "rejected by admin" in done.stdout) == (0, True), done.stderr

    assert wait_for_run(client, run_id) == "success", "a rejection is an outcome, not a failure"
    promotion = json.loads((directory(home, run_id) / "promotion.json").read_text())
    assert (promotion["promoted"], promotion["approval"]["approved"]) == (False, False)
    assert json.loads((directory(home, run_id) / "run.json").read_text())["status"] == "rejected"
    assert registry(home).pointer().version == 1
    [rejection] = registry(home).rejections()
    assert (rejection["by"], rejection["reason"]) == (USER, "Too few nights")
    again = refit(home, "approve", run_id, "--reason", "after all")
    assert (again.returncode, "was answered already: Reject by admin" in again.stderr) == (65, True)


@pytest.mark.timeout(200)
def test_the_way_back_is_a_click_with_a_reason(tab: Tab, running: server.Server, home: Path, tmp_path: Path) -> None:
    go_live(registry(home), tmp_path, "a second version")
    tab.open(f"{running.url}/plugin/models", width=1280)
    until(tab, f"{FRAME}?.readyState === 'complete' && {FRAME}.body.innerText.includes('Version 2 is live.')")
    click(tab, button("Roll back…", FRAME))
    go = f"{FRAME}.getElementById('go')"
    assert tab.value(f"{FRAME}.getElementById('confirm').open && {go}.disabled"), "a reason first"
    tab.value(f"({TYPE})({FRAME}.getElementById('reason'), 'Worse on Mondays')")
    click(tab, go)
    until(tab, f"{FRAME}?.body?.innerText.includes('Version 1 is live.')")
    last = registry(home).history()[-1]
    assert (last["version"], last["kind"]) == (1, "rollback")
    assert last["reason"].startswith("Worse on Mondays")
    assert USER in last["reason"], "who clicked, not whose process it was"


def test_pages_run_nothing_that_they_should_not(tab: Tab, running: server.Server, home: Path) -> None:
    """A page of a run with a script in it: nothing of it runs, and its links lead on with the session."""
    run = next((home / "runs").glob("manual__*"))
    evil = "<title>x</title><script>parent.pwned = top.pwned = 1</script><img src=x onerror='top.pwned = 1'>"
    (run / "reports/validation/data_docs/evil.html").write_text(evil + "<a href='index.html'>on</a>")
    files = f"{running.url}/refit/dags/retrain/runs/{run.name}/files/reports/validation/data_docs"
    tab.open(f"{running.url}/refit/dags/retrain/runs/{run.name}/report", width=1280)
    tab.value(f"document.querySelector('iframe').src = '{files}/evil.html'")
    until(tab, f"{FRAME}?.title === 'x'")
    assert tab.value("window.pwned === undefined")
    tab.value(f"{FRAME}.querySelector('a').click()")
    until(tab, f"{FRAME}?.title === 'Row rules'")
