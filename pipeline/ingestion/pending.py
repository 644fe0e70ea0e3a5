"""What a source has that no ingest has judged yet, by its listing alone: nothing is read and nothing is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.ingestion import releases
from pipeline.ingestion.answers import Checked
from pipeline.ingestion.history import History
from pipeline.ingestion.releases import Release
from pipeline.sources.source import Source


@dataclass(frozen=True)
class Pending:
    listed: int
    new: tuple[str, ...]  # uris of files that are new, changed or labelled otherwise, sorted
    gone: tuple[
        str, ...
    ]  # uris of files that the source has no more, sorted; in quarantine, one may have barred another

    @property
    def empty(self) -> bool:
        return not self.new and not self.gone


def pending(
    source: Source, past: History, *, released: Sequence[Release], touched: Mapping[tuple[str, str], Checked]
) -> Pending:
    """Compare the listing of `source` with the last ingest.

    What is in quarantine is judged: it is not pending until it changes. So an ingest of a source that stays as it is
    always leaves nothing pending, and whoever starts runs by this never starts them in a circle.

    Args:
        released: labels that people gave to files in quarantine.
        touched: (uri, version) to what is known of files that have another version than their row in force.
    """
    listing = list(source.list())
    named, _ = releases.apply(released, listing, {})
    held = past.held()
    waiting = {
        (uri, version, label)
        for uri, version, label in zip(
            *(past.waiting[name].to_pylist() for name in ("uri", "source_version", "label")), strict=True
        )
    }
    new = []
    for item, by_people in zip(listing, named, strict=True):
        row = held.get(item.uri)
        known = touched.get((item.uri, item.version))
        same = row is not None and (
            row.version == item.version or (known is not None and known.image_id == row.image_id)
        )
        if (
            row is not None
            and same
            and (row.label, row.group) in {(each.label, each.group) for each in (item, by_people)}
        ):
            continue
        if (item.uri, item.version, item.label) not in waiting:
            new.append(item.uri)
    present = {item.uri for item in listing}
    judged = {*held, *past.waiting["uri"].to_pylist()}
    gone = [uri for uri in judged if uri.startswith(source.base) and uri not in present]
    return Pending(len(listing), tuple(sorted(new)), tuple(sorted(gone)))
