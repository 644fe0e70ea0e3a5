"""The TFDV schema that feature rows are held against: reading one, and proposing a narrower one for review.

A schema is never inferred in silence from the data that it is to judge: `propose` drafts one from the images of a run,
people review and commit it, later runs are held against it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from google.protobuf import text_format
from tensorflow_metadata.proto.v0.schema_pb2 import Feature, Schema, StringDomain

from pipeline.errors import SettingsError
from pipeline.profiling import features
from pipeline.wording import some

# What is no property of the data: names, hashes and pictures have as many values as images.
NOT_JUDGED = ("image_id", "batch", "dhash", "thumbnail")
COLUMNS = tuple(name for name in features.SCHEMA.names if name not in NOT_JUDGED)

MIN_IMAGES = 100  # fewer say nothing of the bounds of others; then only the labels are narrowed
SIZES = ("width", "height", "aspect_ratio", "bytes")  # vary by factors, not by differences
SIZE_FACTOR = 2.0
SPREADS = 0.5  # of the middle 98 % of the images, beyond what was observed
LEAST_MARGIN = 0.02  # of the bounds before; a feature that never varies would else forbid the first rounding error
OUTLYING = 3.0  # margins beyond the middle 98 %
NAMED = 3  # images or values in a line


def read(path: Path) -> Schema:
    """A schema in text proto. Raises `SettingsError` if it is none, or not one of the feature table.

    It need not name every feature; those that it leaves out are not judged.
    """
    try:
        schema = text_format.Parse(path.read_bytes(), Schema())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise _wrong(f"expected a TFDV schema as text proto, {path} is none ({error})") from None
    names = [feature.name for feature in schema.feature]
    if not names:
        raise _wrong(f"{path} names no feature, so it would let everything pass")
    if unknown := sorted(set(names) - set(COLUMNS)):
        raise _wrong(f"{path} names {', '.join(unknown)}, the features are {', '.join(COLUMNS)}")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise _wrong(f"{path} names {', '.join(twice)} twice, and the second would never be looked at")
    defined = {domain.name for domain in schema.string_domain}
    if missing := sorted({each.domain for each in schema.feature if each.HasField("domain")} - defined):
        raise _wrong(f"{path} uses the string_domain {', '.join(missing)}, which it does not define")
    return schema


def _wrong(problem: str) -> SettingsError:
    return SettingsError(
        f"validate.schema: {problem}.", fix="mend the file; `refit schema propose` drafts one that is right"
    )


@dataclass(frozen=True)
class Narrowed:
    feature: str
    before: str
    after: str
    remark: str | None = None  # what a reviewer should look at


def propose(table: pa.Table, base: Schema) -> tuple[Schema, list[Narrowed]]:
    """`base` with the domains that these images need, and what was narrowed.

    The labels become those that there are. With `MIN_IMAGES` or more, so do formats and modes, and numbers get bounds
    that let all of these images pass: the observed range widened by `SPREADS` times the spread of the middle 98 % on
    either side, for sizes by `SIZE_FACTOR`. Images that alone set a bound are named for review.

    Args:
        table: feature rows with `uri`.
    """
    schema = Schema()
    schema.CopyFrom(base)
    labels = sorted(set(table["label"].to_pylist()))
    next(feature for feature in schema.feature if feature.name == "label").domain = "label"
    schema.string_domain.add(name="label", value=labels)
    narrowed = [Narrowed("label", "any", some(labels, NAMED))]
    if table.num_rows >= MIN_IMAGES:
        for feature in schema.feature:
            if feature.name in features.NUMERIC:
                narrowed.append(_narrow_bounds(feature, table))
            elif feature.name != "label":
                narrowed.append(_narrow_values(values(schema, feature), table[feature.name]))
    return schema, narrowed


def to_text(schema: Schema, narrowed: Sequence[Narrowed], origin: str) -> str:
    """A text proto whose comments tell a reviewer where it comes from; `origin` continues "Proposed from"."""
    lines = [
        f"Proposed by `refit schema propose` from {origin}.",
        "Review it, commit it, and set validate.schema to its path. An image that breaks it is a finding of the check",
        "`schema`, which validate.policy.schema turns into a block, a warning or nothing.",
        "",
        f"Bounds: what was observed, and {SPREADS:g} of the spread of the middle 98 % beyond it; of sizes a factor of "
        f"{SIZE_FACTOR:g}.",
    ]
    if not any(item.feature in features.NUMERIC for item in narrowed):
        lines[-1] = f"Fewer than {MIN_IMAGES} images say nothing of others: only the labels are narrowed."
    lines += [f"{item.feature}: {item.remark}." for item in narrowed if item.remark]
    header = "".join(f"# {line}".rstrip() + "\n" for line in lines)
    return header + "\n" + text_format.MessageToString(schema, as_utf8=True)


def values(schema: Schema, feature: Feature) -> StringDomain | None:
    """The values that a feature may have, where the schema lists them."""
    if feature.HasField("string_domain"):
        return feature.string_domain
    return next((each for each in schema.string_domain if each.name == feature.domain), None)


def bounds(feature: Feature) -> tuple[float, float]:
    """What a number may be, at least and at most; infinite where the schema is silent."""
    domain = feature.int_domain if feature.HasField("int_domain") else feature.float_domain
    return (
        domain.min if domain.HasField("min") else -math.inf,
        domain.max if domain.HasField("max") else math.inf,
    )


def _narrow_values(domain: StringDomain, column: pa.ChunkedArray) -> Narrowed:
    present, before = sorted(set(column.to_pylist())), list(domain.value)
    domain.value[:] = present
    left_out = ", ".join(value for value in before if value not in present)
    return Narrowed(
        domain.name, some(before, NAMED), some(present, NAMED), f"left out {left_out}" if left_out else None
    )


def _narrow_bounds(feature: Feature, table: pa.Table) -> Narrowed:
    lowest, highest = bounds(feature)
    size = feature.name in SIZES
    values = table[feature.name].to_numpy().astype(np.float64)
    scale = np.log(values) if size else values
    p01, p99 = np.quantile(scale, (0.01, 0.99))
    margin = math.log(SIZE_FACTOR) if size else max(SPREADS * (p99 - p01), LEAST_MARGIN * (highest - lowest))
    low, high = values.min() - margin, values.max() + margin
    if size:
        low, high = values.min() / SIZE_FACTOR, values.max() * SIZE_FACTOR
    low, high = max(_rounded(low, math.floor), lowest), min(_rounded(high, math.ceil), highest)
    before = f"{lowest:g} to {highest:g}"
    if feature.HasField("int_domain"):
        feature.int_domain.min, feature.int_domain.max = int(low), int(high)
    else:
        feature.float_domain.min, feature.float_domain.max = low, high
    far = np.flatnonzero((scale < p01 - OUTLYING * margin) | (scale > p99 + OUTLYING * margin))
    remark = None
    if len(far):
        uris = some([repr(uri) for uri in table["uri"].take(far).to_pylist()], NAMED)
        remark = f"{len(far)} of {len(values)} images lie far from the others and set a bound, {uris}"
    return Narrowed(feature.name, before, f"{low:g} to {high:g}", remark)


def _rounded(value: float, direction: Callable[[float], int]) -> float:
    """To three significant digits."""
    digits = 2 - math.floor(math.log10(abs(value))) if value else 0
    return round(direction(value * 10.0**digits) / 10.0**digits, digits)
