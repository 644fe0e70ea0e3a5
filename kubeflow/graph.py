"""dvc.yaml's graph as a Kubeflow pipeline. Needs kfp, which does not fit Refit's own environment (docs/adr/0032)."""

# No `from __future__ import annotations`: kfp reads the annotations of components itself.
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp import dsl, kubernetes
from stage_graph import MODELS, Stage

HOME = "/refit"  # REFIT_HOME of the images
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
STEP = (Path(__file__).parent / "step.py").read_text()
RETRIES = 2
WAIT = "60s"


@dataclass(frozen=True)
class Options:
    """Where a pipeline's steps run. With `claim` they share REFIT_HOME; without, the images' execution.remote."""

    image_data: str
    image_train: str
    model: str  # default of the pipeline's parameter
    claim: str | None  # name of a PersistentVolumeClaim, which several pods may write
    secret: str | None  # holds `KEYS`
    gpus: int  # of one training
    parallel: int  # trainings at once


def pipeline(stages: Sequence[Stage], options: Options) -> Any:
    """start, the stages of dvc.yaml, promote. What follows the stage that looks for new data runs if there is any."""
    [first] = [stage for stage in stages if not stage.upstream]
    start, look = _start(options), _look(first, options)
    later = {stage.name: (_parts if stage.mapped else _step)(stage.name, options) for stage in stages if stage != first}
    promote = _step("promote", options)

    def retrain(source: str = "", model: str = options.model, set: list = [], run_id: str = ""):  # noqa: A002, B006
        started = start(source=source, model=model, settings=set, wanted=run_id)
        run = _placed(started, "start", options).outputs["run_id"]
        found = _placed(look(run_id=run), first.name, options)
        with dsl.If(found.outputs["new"] == "yes", name="something-new"):
            tasks = {}
            for stage in stages:
                if stage == first:
                    continue
                if stage.mapped:
                    task = later[stage.name](run_id=run, parts=started.outputs["parts"])
                else:
                    task = _placed(later[stage.name](run_id=run), stage.name, options)
                tasks[stage.name] = task.after(*(tasks[name] for name in sorted(stage.upstream - {first.name})))
            _placed(promote(run_id=run), "promote", options).after(tasks["gate"])

    text = "Retrain an image classifier and promote it if it is better than the live one."
    return dsl.pipeline(name="refit-retrain", description=text)(retrain)


def _start(options: Options) -> Callable[..., Any]:
    def start(
        source: str, model: str, settings: list, run_id: dsl.OutputPath(str), parts: dsl.OutputPath(list), wanted: str
    ):
        outputs = [dsl.ConcatPlaceholder(["run_id=", run_id]), dsl.ConcatPlaceholder(["parts=", parts])]
        given = [("--run-id=", dsl.PIPELINE_JOB_NAME_PLACEHOLDER), ("--run-id=", wanted), ("--source=", source)]
        given += [("--model=", model), ("--set*=", settings)]
        arguments = [dsl.ConcatPlaceholder([key, value]) for key, value in given]
        return _spec(options.image_data, [*outputs, "--", "start", *arguments])

    return dsl.container_component(start)


def _look(stage: Stage, options: Options) -> Callable[..., Any]:
    def look(run_id: str, new: dsl.OutputPath(str)):
        command = ["--", "stage", stage.name, "--skip-if-nothing-new", "--run-id", run_id]
        return _spec(_image(stage.name, options), [dsl.ConcatPlaceholder(["new=", new]), *command])

    return _named(look, stage.name)


def _step(name: str, options: Options) -> Callable[..., Any]:
    def step(run_id: str):
        arguments = ["stage", name, "--run-id", run_id]
        return dsl.ContainerSpec(image=_image(name, options), command=["refit"], args=arguments)

    return _named(step, name)


def _parts(name: str, options: Options) -> Callable[..., Any]:
    """All parts of a mapped stage. A pipeline of its own, since no step may wait for one inside of a loop."""

    def step(run_id: str, part: str):
        arguments = ["stage", name, "--run-id", run_id, "--part", part]
        return dsl.ContainerSpec(image=_image(name, options), command=["refit"], args=arguments)

    component = _named(step, f"{name}-part")

    def parts_of(run_id: str, parts: list):
        with dsl.ParallelFor(items=parts, name="parts", parallelism=options.parallel) as part:
            _placed(component(run_id=run_id, part=part), name, options)

    return dsl.pipeline(name=name)(parts_of)


def _named(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    function.__name__ = name
    return dsl.container_component(function)


def _spec(image: str, arguments: list[Any]) -> dsl.ContainerSpec:
    return dsl.ContainerSpec(image=image, command=["python", "-c", STEP], args=arguments)


def _image(name: str, options: Options) -> str:
    return options.image_train if name in MODELS else options.image_data


def _placed(task: Any, name: str, options: Options) -> Any:
    """The task with its volume, keys and GPUs. Stages work on a workspace, which no cache of Kubeflow's knows."""
    task.set_caching_options(False).set_display_name(name).set_retry(RETRIES, backoff_duration=WAIT)
    if options.claim:
        kubernetes.mount_pvc(task, pvc_name=options.claim, mount_path=HOME)
    if options.secret:
        kubernetes.use_secret_as_env(task, secret_name=options.secret, secret_key_to_env={key: key for key in KEYS})
    if name == "train" and options.gpus:
        task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(options.gpus)
    return task
