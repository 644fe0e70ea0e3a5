"use strict";
// Rolling back: Airflow's own API, with the session of whoever clicks; it checks the right to it once more.
(() => {
  const dialog = document.getElementById("confirm");
  const reason = document.getElementById("reason");
  const go = document.getElementById("go");
  const problem = document.getElementById("confirm-problem");
  const outcome = document.getElementById("outcome");
  const { api, model, live } = dialog.dataset;
  const poll = 1000; // milliseconds
  let version = null;

  const say = (element, text) => {
    element.textContent = text;
    element.hidden = !text;
  };

  const ask = async (path, body) => {
    const answer = await fetch(api + path, {
      method: body ? "POST" : "GET",
      headers: { Accept: "application/json", ...(body ? { "Content-Type": "application/json" } : {}) },
      body: body ? JSON.stringify(body) : undefined,
      credentials: "same-origin",
    });
    const found = await answer.json().catch(() => ({}));
    if (answer.ok) return found;
    const detail = typeof found.detail === "string" ? found.detail : JSON.stringify(found.detail ?? "");
    const known = {
      401: "Your session has ended. Sign in to Airflow again.",
      403: "Your role in Airflow does not let you start the DAG rollback.",
      404: "Airflow has no DAG rollback. Is it in the folder of DAGs, without import errors?",
    };
    throw new Error(known[answer.status] ?? `Airflow answered ${answer.status}: ${detail}`);
  };

  const follow = async (run) => {
    for (;;) {
      const { state } = await ask(`/dagRuns/${encodeURIComponent(run)}`);
      if (state === "success") return location.replace(`?model=${encodeURIComponent(model)}&fresh=true`);
      if (state === "failed") {
        return say(outcome, `The rollback failed; the log of the run ${run} of the DAG rollback says why. Version ${live} is live.`);
      }
      say(outcome, `Rolling back to version ${version}: the run ${run} is ${state}…`);
      await new Promise((resolve) => setTimeout(resolve, poll));
    }
  };

  for (const button of document.querySelectorAll("button[data-version]")) {
    button.addEventListener("click", () => {
      version = button.dataset.version;
      for (const place of dialog.querySelectorAll("[data-to]")) place.textContent = version;
      say(problem, "");
      reason.value = "";
      go.disabled = true;
      dialog.showModal();
      reason.focus();
    });
  }
  reason.addEventListener("input", () => {
    go.disabled = !reason.value.trim();
  });
  document.getElementById("cancel").addEventListener("click", () => dialog.close());
  go.addEventListener("click", async () => {
    go.disabled = true;
    say(problem, "");
    try {
      const { is_paused: paused } = await ask("");
      if (paused) throw new Error("The DAG rollback is paused. Unpause it first.");
      const conf = { model, to: version, reason: reason.value.trim() };
      const run = await ask("/dagRuns", { logical_date: null, conf });
      dialog.close();
      for (const button of document.querySelectorAll("button[data-version]")) button.disabled = true;
      await follow(run.dag_run_id);
    } catch (error) {
      say(dialog.open ? problem : outcome, error.message);
      go.disabled = false;
    }
  });
})();
