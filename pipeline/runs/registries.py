"""Where the models of runs are kept, and that it is still the place where they were."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline import files
from pipeline.errors import SettingsError, TransientError
from pipeline.promotion.opening import open_registry
from pipeline.promotion.registry import Registry
from pipeline.runs.run import PROMOTED, Run, recorded
from pipeline.settings import params_file, read_params


def registry(model: str, params: Mapping[str, Any] | None = None) -> Registry:
    """The registry of a model, where `params` (a run's own) or else `registry_settings` says.

    Raises `SettingsError` if the location is of no known kind.
    """
    # Runs made by earlier versions have no such section.
    section = registry_settings(model) if params is None else params.get("registry") or {}
    return open_registry(section.get("location"), model)


def registry_settings(model: str) -> Mapping[str, Any]:
    """The section `registry` for commands that belong to no run: that of params.yaml, and for what is null there, that
    of the model's newest run. So a rollback finds the models of runs whose location was given with --set.
    """
    section: dict[str, Any] = read_params(params_file()).get("registry") or {}
    own = [run for run, record in recorded() if record["model"] == model]
    newest = own[-1].params.get("registry") if own else None
    return {key: value if value is not None else (newest or {}).get(key) for key, value in section.items()}


def require_known(registry: Registry, live: int | None, runs: Iterable[Run]) -> None:
    """An empty registry makes a candidate the first model, which nothing live is compared with, and everything
    unneeded: not because a folder is not mounted, or its content gone.

    `live`: the version that `registry` says is live; `runs`: of its model. Raises `TransientError`.
    """
    if live is None and any(map(had_live, runs)):
        raise TransientError(
            f"{registry.storage.base} is empty, though runs here say that a model has been live there.",
            fix="mount or restore it; if it is gone for good, name another model with --model NAME and remove this "
            "one's runs",
        )


def require_same(run: Run, params: Mapping[str, Any]) -> None:
    """Refuse another registry than the run's, for the same reason. Only the run is asked where its models are, as its
    registry may be out of reach. Raises `SettingsError`."""
    model = params["promote"]["model"]
    before, now = registry(model, run.params).storage.base, registry(model, params).storage.base
    if before != now and had_live(run):
        location = (run.params.get("registry") or {}).get("location") or "null"
        raise SettingsError(
            f"registry.location: the model {model!r} has been live in {before}, and {now} has no live version.",
            fix=f"--set registry.location={location}, copy {before} to {now} first, or name another model with "
            "--model NAME",
        )


def had_live(run: Run) -> bool:
    """Whether a model was live when this run began, or is since."""
    path = run.path / "live.json"
    began = files.read_json(path)["version"] if path.exists() else None
    return run.record["status"] == PROMOTED or began is not None
