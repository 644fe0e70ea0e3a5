"""Run the pipeline with kfp's local runner, where kfp is installed: a container for each step."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "kubeflow"), str(ROOT / "dags")]

from docker.types import Mount  # noqa: E402
from graph import Options, pipeline  # noqa: E402
from kfp import local  # noqa: E402
from kfp.local.orchestrator.enhanced_dag_orchestrator import ConditionEvaluator  # noqa: E402
from stage_graph import read_stages  # noqa: E402


def find_outputs_by_name() -> None:
    """Mend kfp 2.17's local runner, which in conditions finds no output of a step but one that is called Output."""
    found = ConditionEvaluator._resolve_pipeline_channel

    def resolve(channel: str, store: Any) -> Any:
        step, _, output = channel.removeprefix("pipelinechannel--").partition("-")
        try:
            return store.get_task_output(step, output)
        except Exception:
            return found(channel, store)

    ConditionEvaluator._resolve_pipeline_channel = staticmethod(resolve)


def main(home: str, source: str, user: str, settings: str, run_id: str) -> None:
    find_outputs_by_name()
    local.init(
        runner=local.DockerRunner(
            mounts=[
                Mount("/refit", home, type="bind"),
                Mount("/photos", source, type="bind", read_only=True),
            ],
            user=user,
            network_mode="none",
        ),
        pipeline_root=f"{home}/kfp",
        raise_on_error=True,
    )
    options = Options("refit-data", "refit-train-cpu", "colours", claim=None, secret=None, gpus=0, parallel=1)
    retrain = pipeline(read_stages(ROOT / "dvc.yaml"), options)
    retrain(source="/photos", model="colours", set=json.loads(settings), run_id=run_id)


if __name__ == "__main__":
    main(*sys.argv[1:])
