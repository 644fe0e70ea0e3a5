"""Read files of a source, keep those that are images, say of the others why not."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline import workers
from pipeline.dataset import images, inspection, store
from pipeline.ingestion import journal, reasons
from pipeline.ingestion.answers import Checked, Limits
from pipeline.progress import track
from pipeline.sources.source import Item, Source

CHUNK = 32  # images a worker reads per call: enough to hide the call's cost, few enough for smooth progress


def check(source: Source, items: Sequence[Item], *, limits: Limits, notebook: Path, processes: int) -> list[Checked]:
    """Read, decode and store every item, in worker processes if there are many; answers in the order of `items`.

    Each answer is in the journal `notebook` as soon as it is known. Errors of the source itself pass through.
    """
    chunks = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
    with workers.pool(processes if len(chunks) > 2 else 1) as pool:
        mapper = map if pool is None else pool.map
        count = len(chunks)
        answers = mapper(check_chunk, [source] * count, chunks, [limits] * count, [notebook] * count)
        return [answer for chunk in track(answers, total=count, what="ingest") for answer in chunk]


def check_chunk(source: Source, items: Sequence[Item], limits: Limits, notebook: Path) -> list[Checked]:
    with journal.appending(notebook, limits) as record:

        def one(item: Item) -> Checked:
            found = check_one(source, item, limits)
            record(item, found)
            return found

        if source.parallel_reads == 1:
            return [one(item) for item in items]
        with ThreadPoolExecutor(source.parallel_reads) as threads:  # a bucket keeps each read waiting
            return list(threads.map(one, items))


def check_one(source: Source, item: Item, limits: Limits) -> Checked:
    """Read, decode and store one image. Errors of the source itself (`RefitError`) pass through."""
    if item.bytes > limits.max_bytes:
        detail = f"{item.bytes} bytes, more than ingest.max_bytes = {limits.max_bytes}"
        return Checked(None, reason=reasons.TOO_MANY_BYTES, detail=detail)
    try:
        data = source.read(item)
        notes = inspection.inspect(data, item.uri, max_pixels=limits.max_pixels, min_side=limits.min_side)
    except images.Unreadable as error:
        return Checked(None, reason=error.reason, detail=error.detail)
    except OSError as error:
        return Checked(None, reason=reasons.UNREADABLE_FILE, detail=error.strerror or str(error))
    return Checked(store.put(data), notes)
