"""From `registry.location` to the registry that is there."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from pipeline.errors import SettingsError
from pipeline.promotion.folder_storage import FolderStorage
from pipeline.promotion.registry import Registry
from pipeline.promotion.storage import Storage
from pipeline.settings import params_file, refit_home


def open_registry(location: str | None, model: str) -> Registry:
    """Touches nothing yet. `location`: None for $REFIT_HOME/registry, a folder that exists, or s3://bucket/prefix.
    A relative folder is one beside params.yaml, as `located` says.

    Raises `SettingsError` for another kind of place.
    """
    return Registry(_storage(location, model))


def located(location: str) -> str:
    """A relative folder lies beside params.yaml, wherever a command is called from."""
    return location if "://" in location else str(params_file().parent / Path(location).expanduser())


def _storage(location: str | None, model: str) -> Storage:
    if location is None:
        return FolderStorage(refit_home() / "registry" / model)
    if "://" not in location:
        folder = Path(located(location))
        return FolderStorage(folder / model, mounted=folder)
    parts = urlsplit(location, allow_fragments=False)
    if parts.scheme != "s3" or not parts.netloc:
        raise SettingsError(
            f"registry.location: expected null, a folder or s3://bucket/prefix, got {location!r}.", fix="name one"
        )
    # boto3 takes 0.3 s to import, which who keeps models in a folder need not pay.
    from pipeline.buckets.bucket import below
    from pipeline.promotion.bucket_storage import BucketStorage

    return BucketStorage(below(location, model), refit_home() / "cache/models" / model)
