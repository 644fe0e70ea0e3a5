"""Runs of machines that share no disk with this server: `execution.remote` of params.yaml names their bucket.

`refit` brings them here, and the pages then read them as they read all others.
"""

from __future__ import annotations

from refit_review import places
from refit_review.command import ask, text


def bring(run_id: str) -> None:
    """Have a run here as the machine that last worked on it has left it. Raises `command.Unavailable`."""
    if is_set() and (name := places.safe_id(run_id)):
        ask("show", "--", name, "run.json")


def bring_card(run_id: str) -> None:
    """Have the card here that training wrote, which DVC keeps beside the model. Raises `command.Unavailable`."""
    if is_set() and (name := places.safe_id(run_id)):
        text("show", "--", name, places.CARD)


def bring_list() -> None:
    """Have the record of every run here. Raises `command.Unavailable`."""
    if is_set():
        ask("runs", "--json")


def is_set() -> bool:
    execution = places.params().get("execution")
    return isinstance(execution, dict) and bool(execution.get("remote"))
