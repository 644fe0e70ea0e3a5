"""Which changed copies of images are found, which unmodified images are linked, and how long it takes.

    python benchmarks/copies.py FOLDER [--copies N] [--searched N]

The folder is one batch; N of its images (60 unless told otherwise) copied by one transformation are another one.
Prints one table. "Same frame" is the index over the whole pictures alone, as for images beyond
`profile.near_duplicate_searched`; the other column is all that `profile` does. Links among unmodified images may
be true: look at them.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image, ImageEnhance, ImageOps
from rich.console import Console
from rich.table import Table

from pipeline.dataset import images, near_duplicates, store
from pipeline.profiling import batches, features
from pipeline.settings import code_root, load

SIDE = 224  # of the copies that are squeezed to a square
Change = Callable[[Image.Image, np.random.Generator], Image.Image]


def crop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return _window(image, rng.uniform(0.5, 0.95), rng.uniform(), rng.uniform())


def half(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return _window(image, 0.5, rng.uniform(), rng.uniform())


def centre(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return _window(image, rng.uniform(0.5, 0.95), 0.5, 0.5)


def mirror(image: Image.Image, _: np.random.Generator) -> Image.Image:
    return ImageOps.mirror(image)


def upside_down(image: Image.Image, _: np.random.Generator) -> Image.Image:
    return ImageOps.flip(image)


def scale(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    factor = rng.uniform(0.4, 1.5)
    size = (max(32, round(image.width * factor)), max(32, round(image.height * factor)))
    return image.resize(size, Image.Resampling.BICUBIC)


def square(image: Image.Image, _: np.random.Generator) -> Image.Image:
    return image.resize((SIDE, SIDE), Image.Resampling.BILINEAR)


def multiply(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    factor = _thirty_percent(rng)
    return image.point(lambda value: min(255, value * factor))


def add(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    offset = 255 * (_thirty_percent(rng) - 1)
    return image.point(lambda value: max(0, min(255, value + offset)))


def contrast(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(_thirty_percent(rng))


# Quality of the JPEG that the copy is stored as; None: PNG; a pair: drawn between.
Quality = int | tuple[int, int] | None
ANY = (30, 95)
LINKED = "linked among the unmodified images"
COPIES: dict[str, tuple[tuple[Change, ...], Quality]] = {
    "JPEG 30-95": ((), ANY),
    "JPEG 30": ((), 30),
    "PNG": ((), None),
    "resized": ((scale,), 90),
    "mirrored": ((mirror,), 95),
    "upside down": ((upside_down,), 95),
    "brightness x": ((multiply,), 95),
    "brightness +": ((add,), 95),
    "contrast": ((contrast,), 95),
    "centre crop": ((centre,), 95),
    "crop of 50 %": ((half,), 95),
    "crop": ((crop,), 95),
    "crop, squeezed": ((crop, square), 90),
    "crop, mirrored": ((crop, mirror), 90),
    "crop, upside down": ((crop, upside_down), 90),
    "mirrored, brightness, JPEG": ((mirror, multiply), ANY),
    "crop, contrast, JPEG": ((crop, contrast), ANY),
    "all of these": ((crop, mirror, contrast, multiply, scale), ANY),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--copies", type=int, default=60)
    parser.add_argument("--searched", type=int)
    arguments = parser.parse_args()
    params = load(code_root() / "params.yaml")
    options, processes = params.profile, params.execution.processes
    every = near_duplicates.Rules(
        options.near_duplicate_bits,
        options.near_duplicate_error,
        options.near_duplicate_detail,
        options.near_duplicate_searched if arguments.searched is None else arguments.searched,
    )
    modes = {"same frame": replace(every, searched=0), "all": every}
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as home:
        os.environ["REFIT_HOME"] = home
        ids = list(dict.fromkeys(filter(None, map(_stored, sorted(arguments.folder.rglob("*"))))))
        chosen = rng.choice(ids, min(arguments.copies, len(ids)), replace=False).tolist()
        batches_of = [
            (name, [store.put(_copy(image_id, name, rng)) for image_id in chosen], Path(home, "features", name))
            for name in COPIES
        ]
        first = _features(ids, Path(home, "features/unmodified"), processes)
        batches_ = [(name, made, _features(made, folder, processes)) for name, made, folder in batches_of]
        columns = [
            _measured(first, chosen, batches_, Path(home, what), used, processes) for what, used in modes.items()
        ]
    table = Table("copies", *(f"found, {what}" for what in modes))
    for name in columns[0]:
        if name == LINKED:
            table.add_section()
        table.add_row(name, *(f"{column[name]:.{0 if name == LINKED else 3}f}" for column in columns))
    Console().print(table)


def _measured(
    first: pa.Table,
    chosen: list[str],
    copied: list[tuple[str, list[str], pa.Table]],
    folder: Path,
    rules: near_duplicates.Rules,
    processes: int,
) -> dict[str, float]:
    """Each kind of copies is a batch of its own, the only one beside the unmodified images."""
    begun = time.perf_counter()
    near_duplicates.update(folder, {"0001": first}, rules, processes)
    middle = time.perf_counter()
    linked = near_duplicates.read(folder).pairs
    found = {}
    for name, made, table in copied:
        near_duplicates.update(folder, {"0001": first, "0002": table}, rules, processes)
        pairs = near_duplicates.read(folder).pairs
        cluster = near_duplicates.clusters({*made, *chosen}, pairs)
        same = [a == b or (a in cluster and cluster[a] == cluster.get(b)) for a, b in zip(chosen, made, strict=True)]
        found[name] = float(np.mean(same))
    last = time.perf_counter() - middle
    return found | {
        LINKED: len({image_id for pair in linked for image_id in pair}),
        "ms per image, from nothing": 1000 * (middle - begun) / first.num_rows,
        "ms per copy beside them": 1000 * last / (len(copied) * len(chosen)),
    }


def _stored(path: Path) -> str:
    """The image id, empty if the file is no image."""
    try:
        images.decode(data := path.read_bytes(), 10**9)
    except (images.Unreadable, IsADirectoryError):
        return ""
    return store.put(data)


def _features(ids: list[str], folder: Path, processes: int) -> pa.Table:
    rows = {"image_id": ids, "uri": ids, "label": [""] * len(ids), "batch": ["0001"] * len(ids)}
    table = pa.table(rows | {"removed": [False] * len(ids), "bytes": [1] * len(ids)})
    batches.update(folder, {"0001": table}, processes)
    return pa.parquet.read_table(folder / "0001.parquet").cast(features.SCHEMA)


def _copy(image_id: str, name: str, rng: np.random.Generator) -> bytes:
    changes, quality = COPIES[name]
    image = images.decode(store.get(image_id), 10**9).image
    for change in changes:
        image = change(image, rng)
    buffer = io.BytesIO()
    if quality is None:
        image.save(buffer, "PNG")
    else:
        image.save(buffer, "JPEG", quality=int(rng.integers(*quality)) if isinstance(quality, tuple) else quality)
    return buffer.getvalue()


def _window(image: Image.Image, area: float, across: float, down: float) -> Image.Image:
    width, height = (round(side * area**0.5) for side in image.size)
    left, top = round((image.width - width) * across), round((image.height - height) * down)
    return image.crop((left, top, left + width, top + height))


def _thirty_percent(rng: np.random.Generator) -> float:
    return float(rng.choice([rng.uniform(0.7, 0.9), rng.uniform(1.1, 1.3)]))


if __name__ == "__main__":
    main()
