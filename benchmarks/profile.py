"""How fast a folder of images is measured, beside merely decoding it, and beside cleanvision.

    python benchmarks/profile.py FOLDER [--processes N] [--rounds N] [--copies N] [--cleanvision PYTHON]

Prints one table. Each contender runs in a process of its own, all in turn in every round, and the medians count, so
other work on the machine falls on all of them alike. Images per second go by the clock; images per core second, and
the ratios, by the processor time of all processes together, which a busy machine distorts less.

"profile" is what the stage does: read the bytes from the image store, decode, measure, write Parquet. "decode" reads
the same files and decodes them at full size with the same decoder. `--copies` makes a small folder last longer than
the start of the processes; the copies differ in one byte behind the end of the image. cleanvision is no dependency of
Refit; give it an environment of its own:

    uv venv /tmp/cleanvision && uv pip install --python /tmp/cleanvision/bin/python cleanvision
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import psutil
import pyarrow as pa
import simplejpeg
from PIL import Image
from rich.console import Console
from rich.table import Table

from pipeline import workers
from pipeline.dataset import images, manifest, store
from pipeline.dataset.inspection import inspect
from pipeline.dataset.reduced import reduced
from pipeline.profiling import batches, features

MAX_PIXELS = 10**9
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


@dataclass(frozen=True)
class Run:
    seconds: float
    core_seconds: float
    peak: int  # bytes of memory that all processes together held


def run(command: Sequence[str]) -> Run:
    quiet = os.environ | {"TQDM_DISABLE": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=quiet) as child:
        root, peak = psutil.Process(child.pid), 0
        while child.poll() is None:
            try:
                tree = [root, *root.children(recursive=True)]
                peak = max(peak, sum(process.memory_info().rss for process in tree))
            except psutil.NoSuchProcess:  # a worker that ended in between
                pass
            time.sleep(0.05)
        output = child.stdout.read() if child.stdout else ""
    if child.returncode:
        sys.exit(f"{' '.join(command[:3])} … failed with status {child.returncode}")
    return Run(*json.loads(output.splitlines()[-1]), peak)


def copy_images(source: Path, target: Path, copies: int) -> int:
    """Usable images of `source`, flat, `copies` times; returns how many files there are now."""
    count = 0
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        data = path.read_bytes()
        try:
            inspect(data, path.name, max_pixels=MAX_PIXELS, min_side=1)
        except images.Unreadable:
            continue
        for copy in range(copies):
            (target / f"{count:07d}{path.suffix}").write_bytes(data + bytes([copy]) * (copy > 0))
            count += 1
    return count


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
        results: dict[str, list[Run]] = {name: [] for name in commands}
        for _ in range(arguments.rounds):
            for name, command in commands.items():
                results[name].append(run(command))

    def against(name: str, other: str) -> str:
        """How many times as fast as `other`: the median of the ratios within each round."""
        if other not in results:
            return "-"
        pairs = zip(results[name], results[other], strict=True)
        return f"{median(theirs.core_seconds / ours.core_seconds for ours, theirs in pairs):.2f}"

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
