"""Runs: a directory each, in which `dvc.yaml`'s stages are reproduced.

A run holds its own copy of params, graph and code, starts from the lock and the outputs of the last good run of
the same model, and can be continued after any interruption.
"""

from pipeline.runs.creation import create, interrupted
from pipeline.runs.fingerprints import code_digest, fingerprint, nothing_new
from pipeline.runs.registries import registry, registry_settings, require_known
from pipeline.runs.repository import cache_alone, using_cache
from pipeline.runs.reproduction import reproduce
from pipeline.runs.run import (
    BASES,
    FAILED,
    INTERRUPTED,
    NOTHING_NEW,
    PROMOTE,
    PROMOTED,
    REFUSED,
    REJECTED,
    RUNNING,
    WAITING,
    Run,
    all_runs,
    decided,
    deciding,
    driven,
    driving,
    find,
    new_id,
    parent_of,
    publish,
    recorded,
    require_idle,
    safe_id,
    stage_names,
    workspaces,
)
from pipeline.runs.sharing import bring_inputs, newest_first, opened, share_releases

__all__ = [
    "BASES",
    "FAILED",
    "INTERRUPTED",
    "NOTHING_NEW",
    "PROMOTE",
    "PROMOTED",
    "REFUSED",
    "REJECTED",
    "RUNNING",
    "WAITING",
    "Run",
    "all_runs",
    "bring_inputs",
    "cache_alone",
    "code_digest",
    "create",
    "decided",
    "deciding",
    "driven",
    "driving",
    "find",
    "fingerprint",
    "interrupted",
    "new_id",
    "newest_first",
    "nothing_new",
    "opened",
    "parent_of",
    "publish",
    "recorded",
    "registry",
    "registry_settings",
    "reproduce",
    "require_idle",
    "require_known",
    "safe_id",
    "share_releases",
    "stage_names",
    "using_cache",
    "workspaces",
]
