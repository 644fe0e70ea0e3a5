"""What the benchmarks share: contenders that run in processes of their own, all in turn in every round.

So other work on the machine falls on all of them alike, and ratios are those within a round.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil

from pipeline.dataset import images
from pipeline.dataset.inspection import inspect

MAX_PIXELS = 10**9


@dataclass(frozen=True)
class Run:
    """What a contender printed as its last line, a JSON list of numbers, and what it took."""

    numbers: tuple[float, ...]
    peak: int  # bytes of memory that all its processes together held

    @property
    def seconds(self) -> float:
        return self.numbers[0]

    @property
    def core_seconds(self) -> float:
        return self.numbers[1]


def run(command: Sequence[str]) -> Run:
    quiet = os.environ | {"TQDM_DISABLE": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"}
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
    return Run(tuple(json.loads(output.splitlines()[-1])), peak)


def compete(commands: Mapping[str, Sequence[str]], rounds: int) -> dict[str, list[Run]]:
    results: dict[str, list[Run]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            results[name].append(run(command))
    return results


def ratio(slower: Sequence[Run], faster: Sequence[Run], number: str = "seconds") -> float:
    """How many times as fast: the median of the ratios within each round."""
    return median(getattr(one, number) / getattr(other, number) for one, other in zip(slower, faster, strict=True))


def copy_images(source: Path, target: Path, copies: int) -> int:
    """Usable images of `source`, flat, `copies` times; returns how many files there are now.

    The copies differ in a byte behind the end of the image.
    """
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
