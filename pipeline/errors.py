"""One exception tree. Every message says what was expected, what was received and what to do.

A stage turns a `RefitError` into one line on stderr and the exit status of its class; the scheduler reads the
status to tell what a retry can cure (75) from what it cannot (65, 78).
"""

from __future__ import annotations

from collections.abc import Callable


class RefitError(Exception):
    """A failure that a user can act on. `fix` names the command or params key that cures it."""

    exit_status = 65  # EX_DATAERR of sysexits.h: the input is at fault; a retry fails the same way
    shown = False  # whether the user has seen it already, from a stage's own process

    def __init__(self, problem: str, *, fix: str) -> None:
        super().__init__(f"{problem} Fix: {fix}")
        self.problem = problem
        self.fix = fix

    def __reduce__(self) -> tuple[Callable[..., RefitError], tuple[type[RefitError], str, str]]:
        return _rebuild, (type(self), self.problem, self.fix)  # crosses from worker processes to their parent


def _rebuild(kind: type[RefitError], problem: str, fix: str) -> RefitError:
    return kind(problem, fix=fix)


class SettingsError(RefitError):
    """params.yaml or an override is wrong: the key, what was expected and what was received are in the text."""

    exit_status = 78  # EX_CONFIG


class DataError(RefitError):
    """The images, labels or tables cannot be used as they are."""


class ModelError(RefitError):
    """Weights, a backbone or a trained model are not what they should be."""


class PromotionRefused(RefitError):
    """The registry will not move: there is no positive decision for this model, or another promotion won."""


class TransientError(RefitError):
    """A busy workspace, a full disk, a store that does not answer: the same command may succeed later."""

    exit_status = 75  # EX_TEMPFAIL
