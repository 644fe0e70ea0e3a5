"""Write dvc.yaml's graph as a Kubeflow Pipelines v2 package; `refit kfp compile` runs this where kfp is installed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "dags"))  # the reading of dvc.yaml that Airflow's DAG is made from


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--image-data", required=True)
    parser.add_argument("--image-train", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--claim")
    parser.add_argument("--secret")
    parser.add_argument("--gpus", type=int, required=True)
    parser.add_argument("--parallel", type=int, required=True)
    given = vars(parser.parse_args())
    output = given.pop("output")

    from graph import Options, pipeline
    from kfp import compiler
    from stage_graph import read_stages

    compiler.Compiler().compile(pipeline(read_stages(ROOT / "dvc.yaml"), Options(**given)), str(output))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
