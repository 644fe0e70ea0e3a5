"""Weights that Keras publishes: fetched once into $REFIT_HOME/cache/weights, kept and used only with their digest."""

from __future__ import annotations

import hashlib
import http.client
import logging
import re
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from pipeline import files
from pipeline.errors import ModelError
from pipeline.settings import refit_home

logger = logging.getLogger(__name__)

BASE = "https://storage.googleapis.com/tensorflow/keras-applications/"
_TIMEOUT = 60  # seconds without a byte
_MEBIBYTE = 2**20
_LIMIT = 2048  # MiB; the largest, ConvNeXt XL, has 1.4 GB


def cache() -> Path:
    return refit_home() / "cache/weights"


def cached(file: str) -> Path:
    """Where the file that lies at `BASE` + `file` is or will be kept."""
    return cache() / Path(file).name


def fetch(file: str, digest: str) -> Path:
    """The file at `BASE` + `file`, whose MD5 or SHA-256 is `digest`, from the cache or the network.

    Raises `ModelError` when it cannot be fetched or is another one.
    """
    path = cached(file)
    if path.is_file() and digest_of(path, digest) == digest:
        return path
    url = urllib.parse.urljoin(BASE, file)
    logger.info("downloading %s", url)
    with files.replacing(path) as temporary:
        _download(url, temporary, path)
        if (found := digest_of(temporary, digest)) != digest:
            raise ModelError(
                f"{url}: expected a file with the digest {digest}, got {found}.",
                fix="try again; if it stays so, something between here and there alters downloads: "
                f"get the file elsewhere, put it at {path}, or set train.weights to a file (.weights.h5)",
            )
    return path


def digest_of(path: Path, like: str) -> str:
    """Hex digest of a file, by the algorithm whose digests are as long as `like`."""
    algorithm = "sha256" if re.fullmatch("[0-9a-f]{64}", like) else "md5"
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


def _download(url: str, target: Path, kept: Path) -> None:
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer, target.open("wb") as stream:  # noqa: S310
            for _ in range(_LIMIT):
                if not (chunk := answer.read(_MEBIBYTE)):
                    return
                stream.write(chunk)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise ModelError(
            f"ImageNet weights could not be downloaded from {url}: {error}.",
            fix=f"connect to the network once, put the file at {kept}, or set train.weights to a file (.weights.h5, "
            ".h5), an s3:// URI or none",
        ) from error
    raise ModelError(
        f"{url}: expected at most {_LIMIT} MiB, more came.", fix="set train.weights to a file (.weights.h5)"
    )
