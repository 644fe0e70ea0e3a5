"""How fast a folder of images is measured, beside merely decoding it, and beside cleanvision.

    python benchmarks/profile.py FOLDER [--processes N] [--rounds N] [--copies N] [--cleanvision PYTHON]

Prints one table. Images per second go by the clock; images per core second, and the ratios, by the processor time of
all processes together, which a busy machine distorts less.

"profile" is what the stage does: read the bytes from the image store, decode, measure, write Parquet. "decode" reads
the same files and decodes them at full size with the same decoder. `--copies` makes a small folder last longer than
the start of the processes. cleanvision is no dependency of
Refit; give it an environment of its own:

    uv venv /tmp/cleanvision && uv pip install --python /tmp/cleanvision/bin/python cleanvision
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import pyarrow as pa
import simplejpeg
from contenders import MAX_PIXELS, compete, copy_images, ratio
from PIL import Image
from rich.console import Console
from rich.table import Table

from pipeline import workers
from pipeline.dataset import images, manifest, store
from pipeline.dataset.inspection import inspect
from pipeline.dataset.reduced import reduced
from pipeline.profiling import batches, features

CLEANVISION = """
import json, os, sys, time
from cleanvision import Imagelab
start, used = time.perf_counter(), sum(os.times()[:4])
lab = Imagelab(data_path=sys.argv[1], verbose=False)
lab.find_issues(n_jobs=int(sys.argv[2]), verbose=False)
print(json.dumps([time.perf_counter() - start, sum(os.times()[:4]) - used]))
"""


def decode(paths: Sequence[Path]) -> None:
    for path in paths:
        data = path.read_bytes()
        try:
            simplejpeg.decode_jpeg(data, "RGB")
        except ValueError:
            images.decode(data, MAX_PIXELS)


def decode_scaled(paths: Sequence[Path]) -> None:
    for path in paths:
        reduced(path.read_bytes(), features.MEASURED_SIDE)


def inspect_all(paths: Sequence[Path]) -> None:
    for path in paths:
        inspect(path.read_bytes(), path.name, max_pixels=MAX_PIXELS, min_side=1)


CONTENDERS: dict[str, Callable[[Sequence[Path]], None]] = {
    "decode": decode,
    "decode, scaled": decode_scaled,
    "inspect (ingest)": inspect_all,
}
PROFILE = "profile"


def time_contender(name: str, folder: Path, processes: int) -> tuple[float, float]:
    """Seconds, and seconds of processor time, for all images of `folder`; the start of further processes counts."""
    paths = sorted(folder.iterdir())
    rows = manifest_of(paths) if name == PROFILE else None
    chunks = [paths[start : start + batches.CHUNK] for start in range(0, len(paths), batches.CHUNK)]
    batches.POOL_FROM = 0  # as many processes as the others, however little there is to do
    Image.preinit()  # imports are not counted, cleanvision's are not either
    start, used = time.perf_counter(), sum(os.times()[:4])
    if rows is not None:
        with tempfile.TemporaryDirectory() as target:
            batches.update(Path(target), {"0001": rows}, processes)
    else:
        with workers.pool(processes) as pool:
            list((map if pool is None else pool.map)(CONTENDERS[name], chunks))
    return time.perf_counter() - start, sum(os.times()[:4]) - used


def manifest_of(paths: Sequence[Path]) -> pa.Table:
    fixed = {"source_version": "1", "label": "", "group": None, "batch": "0001", "notes": [], "removed": False}
    return pa.Table.from_pylist(
        [
            {"image_id": store.put(data), "uri": path.name, "bytes": len(data), "ingested_at": datetime.now(UTC)}
            | fixed
            for path in paths
            if (data := path.read_bytes())
        ],
        schema=manifest.SCHEMA,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--copies", type=int, default=1)
    parser.add_argument("--cleanvision", metavar="PYTHON", help="a Python that has cleanvision")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        print(json.dumps(time_contender(arguments.contender, arguments.folder, arguments.processes)))
        return

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "images")
        folder.mkdir()
        count = copy_images(arguments.folder, folder, arguments.copies)
        os.environ["REFIT_HOME"] = str(Path(scratch, "home"))
        same = [str(folder), "--processes", str(arguments.processes)]
        commands = {name: [sys.executable, __file__, *same, "--contender", name] for name in (*CONTENDERS, PROFILE)}
        if arguments.cleanvision:
            commands["cleanvision"] = [
                arguments.cleanvision, "-c", CLEANVISION, str(folder), str(arguments.processes)
            ]  # fmt: skip
        results = compete(commands, arguments.rounds)

    def against(name: str, other: str) -> str:
        return f"{ratio(results[other], results[name], 'core_seconds'):.2f}" if other in results else "-"

    table = Table("", "images/s", "images/core s", "peak MB", "× decode", "× cleanvision")
    for name, runs in results.items():
        rate = count / median(run.seconds for run in runs)
        per_core = count / median(run.core_seconds for run in runs)
        peak = median(run.peak for run in runs) / 2**20
        figures = (f"{figure:.0f}" for figure in (rate, per_core, peak))
        table.add_row(name, *figures, against(name, "decode"), against(name, "cleanvision"))
    console = Console()
    console.print(f"{count} images, {arguments.processes} processes, medians of {arguments.rounds} rounds")
    console.print(table)
    if not arguments.cleanvision:
        console.print("cleanvision was left out; --cleanvision PYTHON adds it (see --help)")


if __name__ == "__main__":
    main()
