"""`refit kfp`: the graph of dvc.yaml for Kubeflow Pipelines."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.errors import clear_errors
from pipeline.errors import SettingsError
from pipeline.settings import code_root, params_file, read_params

PYTHON = "REFIT_KFP_PYTHON"

app = typer.Typer(help="Kubeflow Pipelines.", no_args_is_help=True)


@app.callback()
def kfp() -> None:
    """Kubeflow Pipelines."""


@app.command("compile")
def compile_package(
    output: Annotated[Path, typer.Option(help="The package, a YAML file.")] = Path("refit.yaml"),
    image_data: Annotated[str, typer.Option(help="Image of the stages up to shard.")] = "refit-data",
    image_train: Annotated[str, typer.Option(help="Image of the others.")] = "refit-train-cpu",
    claim: Annotated[
        str | None,
        typer.Option(
            help="PersistentVolumeClaim (ReadWriteMany) for REFIT_HOME. Without it, the params.yaml of the images has "
            "to name a bucket in execution.remote."
        ),
    ] = None,
    secret: Annotated[str | None, typer.Option(help="Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.")] = None,
    gpus: Annotated[int, typer.Option(min=0, help="GPUs of one training.")] = 0,
    parallel: Annotated[int, typer.Option(min=1, help="Trainings at once.")] = 1,
    python: Annotated[
        Path | None, typer.Option(help=f"Interpreter that has kfp and kfp-kubernetes; also {PYTHON}.")
    ] = None,
) -> None:
    """Write dvc.yaml's graph as a Kubeflow Pipelines v2 package, with the parameters source, model, set and run_id."""
    with clear_errors():
        script = code_root() / "kubeflow/compile.py"
        if not script.exists():
            raise SettingsError(f"Expected {script}, found none: images do not hold it.", fix="use a checkout of Refit")
        model = read_params(params_file())["promote"]["model"]
        given = {"claim": claim, "secret": secret, "gpus": gpus, "parallel": parallel, "model": model}
        given |= {"output": output.absolute(), "image-data": image_data, "image-train": image_train}
        options = [f"--{key}={value}" for key, value in given.items() if value is not None]
        done = subprocess.run([str(_interpreter(python)), str(script), *options], capture_output=True, text=True)
        if done.returncode:
            said = done.stderr.strip().splitlines()
            raise SettingsError(
                f"{script} ended with status {done.returncode}: {said[-1] if said else 'it said nothing'}",
                fix="install kfp >= 2.14 and kfp-kubernetes there, or check the options",
            )
        typer.echo(f"{output}: upload it to Kubeflow Pipelines.")


def _interpreter(chosen: Path | None) -> Path:
    """The first that was named; this one, if it has kfp; else the one that `make test-kfp` makes."""
    if named := chosen or os.environ.get(PYTHON):
        return Path(named)
    if importlib.util.find_spec("kfp"):
        return Path(sys.executable)
    made = code_root() / "build/kfp/bin/python"
    if made.exists():
        return made
    raise SettingsError(
        "Expected an interpreter that has kfp, found none: kfp and TensorFlow want different protobufs.",
        fix=f"python3 -m venv kfp && kfp/bin/pip install kfp kfp-kubernetes, then --python kfp/bin/python or {PYTHON}",
    )
