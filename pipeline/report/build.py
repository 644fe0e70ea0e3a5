"""`report.html` of a run: one page that needs nothing beside itself, whatever state the run is in.

Labels, file names and messages come from outside, so the template escapes everything; the page carries a content
security policy of its own that allows no script and no request.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.dataset import store
from pipeline.pages.environment import environment
from pipeline.pages.thumbnails import Album
from pipeline.report import curves, matrix, mistakes, reliability
from pipeline.report.evidence import PROMOTE, Evidence, read, stage_names
from pipeline.settings import params_file, read_params

REPORT = "report.html"
TEMPLATE = "report.html.j2"
VALIDATE = "validate"
SPLITS = ("train", "val", "test", "quarantine")
QUARANTINED_SHOWN = 100
OPEN_ROWS = 30  # longer tables start folded
WORST_ROWS = 10  # of a table of classes that is folded, these stay in sight


def build(run: Path) -> Path:
    """Write the run's report from what there is so far. Raises only if run.json or params.yaml cannot be read."""
    target = run / REPORT
    files.write_text(target, render(read(run), read_params(params_file())))
    return target


def render(evidence: Evidence, defaults: Mapping[str, Any]) -> str:
    """The page. `defaults`: the params that the run's are compared with."""
    page = environment(Path(__file__).parent)
    page.filters |= {"short": short, "time": time}
    evaluation = evidence.evaluation or {}
    tested = evaluation.get("test")
    by_class = list(tested["per_class"].items()) if tested else []
    compared = evaluation.get("live")
    album = Album(store.present, max_pixels=evidence.params["ingest"]["max_pixels"], budget=mistakes.BUDGET)
    groups = mistakes.choose(evidence.predictions, album) if tested else []
    anchors = {(group.label, group.predicted): group.anchor for group in groups}
    return page.get_template(TEMPLATE).render(
        vars(evidence)
        | {
            "state": state(evidence),
            "stages": stages(evidence),
            "panels": curves.panels(evidence.history) if evidence.history else [],
            "curves": curves,
            "matrix": matrix.build(list(tested["per_class"]), evidence.predictions, anchors) if tested else None,
            "mistakes": groups,
            "shown": sum(len(group.mistakes) for group in groups),
            "wrong": sum(row["label"] != row["predicted"] for row in evidence.predictions),
            "class_rows": sorted((item for item in by_class if item[1]["support"]), key=lambda item: item[1]["recall"]),
            "without_images": [name for name, row in by_class if not row["support"]],
            "reliability": reliability.diagram(evaluation["calibration"]["bins"]) if tested else None,
            "slices": slices(evaluation["slices"]) if tested else {},
            "live_changes": sorted(compared["per_class"].items(), key=_change) if compared else [],
            "live_scale": _scale(compared["per_class"].values()) if compared else 1.0,
            "drifted": [row for row in evidence.profile["drift"] if row["drifted"]] if evidence.profile else [],
            "splits": SPLITS,
            "quarantine_reasons": Counter(row["reason"] for row in evidence.quarantine).most_common(),
            "quarantined_shown": QUARANTINED_SHOWN,
            "open_rows": OPEN_ROWS,
            "worst_rows": WORST_ROWS,
            "confidence": f"{evidence.params['evaluate']['confidence']:.0%}",
            "changed": list(differences(defaults, evidence.params)),
        }
    )


def state(evidence: Evidence) -> dict[str, str]:
    """The headline: `mark` (a CSS class), `title`, `text`."""
    model = evidence.run["model"]
    status = evidence.run["status"]
    if evidence.failure:
        blocked = _blocked(evidence)
        title = "Blocked: the data cannot be trained on" if blocked else f"Failed in {failed_stage(evidence)}"
        return _state("bad", title, evidence.failure["problem"])
    if evidence.promotion and evidence.promotion["promoted"]:
        title = f"Promoted: version {evidence.promotion['version']} of {model} is live"
        return _state("good", title, evidence.promotion["reason"])
    if evidence.decision:
        if answer := evidence.promotion and evidence.promotion.get("approval"):
            live = evidence.live["version"]
            stays = f": version {live} stays live" if live else ": nothing goes live"
            return _state("warn", f"Rejected by {answer['by']}{stays}", answer["reason"])
        if not evidence.decision["promote"]:
            live = evidence.live["version"]
            stays = f": version {live} stays live" if live else ": nothing goes live"
            return _state("warn", f"Refused{stays}", evidence.decision["summary"])
        if status == "waiting":
            return _state("warn", "Waiting for approval", evidence.decision["summary"])
        return _state("good", "To be promoted", evidence.decision["summary"])
    if status == "nothing_new":
        text = f"Same images, params and code as in run {evidence.run['parent']}. Nothing was trained."
        return _state("calm", "Nothing new", text)
    if status == "interrupted":
        return _state("bad", "Interrupted", "The run was cut off before a decision. The same command continues it.")
    if status == "failed":
        return _state("bad", "Failed", "The run ended before a decision. A new run starts from the last good data.")
    return _state(
        "calm", "In progress", f"{len(evidence.done)} of {len(stage_names(evidence.params))} stages are done."
    )


def _state(mark: str, title: str, text: str) -> dict[str, str]:
    return {"mark": mark, "title": title, "text": text}


def stages(evidence: Evidence) -> list[dict[str, str]]:
    """Every stage with the mark `done`, `failed` or `open`."""
    failed = failed_stage(evidence)
    return [
        {"name": name, "mark": "failed" if name == failed else "done" if name in evidence.done else "open"}
        for name in stage_names(evidence.params)
    ]


def failed_stage(evidence: Evidence) -> str | None:
    """The first stage that is not done, or the validation that blocked, which has left its verdict."""
    if not evidence.failure:
        return None
    if _blocked(evidence):
        return VALIDATE
    return next((name for name in stage_names(evidence.params) if name not in evidence.done), PROMOTE)


def _blocked(evidence: Evidence) -> bool:
    return evidence.verdict is not None and evidence.verdict["verdict"] == "block"


def differences(defaults: Mapping[str, Any], params: Mapping[str, Any], prefix: str = "") -> Iterator[dict[str, Any]]:
    """Keys whose value in `params` is not the default: `key`, `default`, `value`, in the order of the file."""
    for name, value in params.items():
        default = defaults.get(name)
        if isinstance(value, Mapping):
            yield from differences(default if isinstance(default, Mapping) else {}, value, f"{prefix}{name}.")
        elif value != default:
            yield {"key": f"{prefix}{name}", "default": default, "value": value}


def slices(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """By what they are made by, lowest accuracy first; labels have a table of their own. One slice alone is not the
    whole: the others by the same were left out."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: row["accuracy"]):
        if row["by"] != "label":
            found.setdefault(row["by"], []).append(row)
    return {by: found[by] for by in sorted(found)}


def _change(item: tuple[str, Mapping[str, Any]]) -> float:
    """Sorts the largest loss of recall first, classes without test images last."""
    row = item[1]
    return float(row["candidate_recall"] - row["live_recall"]) if row["support"] else 2.0


def _scale(rows: Iterable[Mapping[str, Any]]) -> float:
    """The largest end of an interval: what the drawings of differences reach to."""
    ends = [abs(row[key]) for row in rows if row["support"] for key in ("difference_low", "difference_high")]
    return max(ends, default=1.0) or 1.0


def short(digest: str | None) -> str:
    return "–" if digest is None else digest[:12]


def time(iso: str) -> str:
    """To the minute; all times are UTC."""
    return iso[:16].replace("T", " ") + " UTC"
