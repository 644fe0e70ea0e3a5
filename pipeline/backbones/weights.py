"""Where `train.weights` may point to, and how what lies there gets into a backbone.

`imagenet` | `none` | a path | `s3://bucket/key`, of a file that Keras wrote (`.weights.h5`, legacy `.h5`), of a model
of Refit (`.keras`: its backbone is taken), or, for networks that have them, of a TensorFlow checkpoint or SavedModel.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import files
from pipeline.backbones import bucket_weights, downloads, keras_files, tf_checkpoint
from pipeline.backbones.backbone import IMAGENET, NONE, Backbone
from pipeline.errors import ModelError

if TYPE_CHECKING:
    import keras


def load(model: keras.Model, backbone: Backbone, weights: str) -> None:
    """Assign to `model` what lies at the path or URI `weights`.

    Raises `ModelError` when nothing is there or it does not fit, `TransientError` and `SettingsError` as the bucket.
    """
    path = find(weights)
    if path.suffix == ".keras":
        keras_files.load_backbone_of(model, path, backbone.scaling)
    elif tf_checkpoint.is_checkpoint(path):
        if backbone.variables is None:
            raise ModelError(
                f"train.weights: {path} is a TensorFlow checkpoint, and {backbone.name} reads none.",
                fix="give a file that Keras wrote (.weights.h5), or set train.backbone=inception_v1",
            )
        tf_checkpoint.load(model, backbone.variables(model), path)
    else:
        keras_files.load(model, path)


def find(weights: str) -> Path:
    """The path, or the local copy of the `s3://` URI. Raises `ModelError` when nothing is there."""
    if weights.startswith("s3://"):
        return bucket_weights.fetch(weights)
    path = Path(weights).expanduser()
    if path.is_file() or tf_checkpoint.is_checkpoint(path):
        return path
    kind = "a folder without a TensorFlow checkpoint" if path.is_dir() else "no file"
    raise ModelError(
        f"train.weights: expected {IMAGENET}, {NONE}, an s3:// URI or the path of weights, found {kind} at {path}.",
        fix="check the path",
    )


def identify(backbone: Backbone, weights: str) -> str:
    """Tells weights apart by content, for records and the keys of caches: `imagenet:<name>:<digest>`,
    `file:<sha256>`, `none`.

    Raises as `find`.
    """
    if weights == NONE:
        return NONE
    if weights == IMAGENET:
        return f"{IMAGENET}:{backbone.name}:{backbone.imagenet}"
    path = find(weights)
    if path.is_file():
        return f"file:{files.sha256(path)}"
    digest = hashlib.sha256()
    for part in tf_checkpoint.parts(path):
        digest.update(f"{part.name}\0{files.sha256(part)}\n".encode())
    return f"file:{digest.hexdigest()}"


def at_hand(backbone: Backbone) -> str:
    """Whether ImageNet's weights are here, can be downloaded, or must be given, in words."""
    if backbone.download is not None:
        return "imagenet (cached)" if downloads.cached(backbone.download).is_file() else "imagenet (download)"
    if backbone.imagenet is not None:
        return "imagenet (installed)"
    return "TensorFlow checkpoint" if backbone.variables is not None else "none"
