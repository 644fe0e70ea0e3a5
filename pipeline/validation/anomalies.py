"""TFDV's judgement of the feature statistics by a schema.

Refit's own, `schema.pbtxt`, is written by hand and says what features can be at all (a share is 0-1, an entropy 0-8
bits), so an anomaly means that a table is damaged or was written by other code. A user's says what the images should
be. Neither is inferred from the data that it judges.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import tensorflow_data_validation as tfdv
from google.protobuf import text_format
from tensorflow_metadata.proto.v0.anomalies_pb2 import Anomalies, AnomalyInfo
from tensorflow_metadata.proto.v0.schema_pb2 import Schema

from pipeline.profiling import schema as schemas
from pipeline.validation.verdict import EXAMPLES, Finding

SCHEMA = Path(__file__).with_name("schema.pbtxt")
# A format or mode that nobody has thought of is worth a look; it decodes, so it does no harm.
_HARMLESS = "ENUM_TYPE_UNEXPECTED_STRING_VALUES"
# A schema judges what it names. Refit's names everything, and a user's does not break when Refit measures more.
_NOT_NAMED = "SCHEMA_NEW_COLUMN"


def find(statistics: Path, schema: Path) -> Anomalies:
    """The anomalies of a binary `DatasetFeatureStatisticsList`.

    Raises `SettingsError` if `schema` is no TFDV schema of the feature table.
    """
    return tfdv.validate_statistics(tfdv.load_stats_binary(str(statistics)), schemas.read(schema))


def to_text(anomalies: Anomalies) -> str:
    """Text proto."""
    return text_format.MessageToString(anomalies)


def findings(anomalies: Anomalies, table: pa.Table, *, own: bool) -> Iterator[Finding]:
    """One for each feature that breaks the schema, all of the check `schema`.

    The severity `block` stands for whatever the policy says, `warn` is never more than that.

    Args:
        table: the feature rows, with `uri`.
        own: the schema is Refit's, so what breaks it is Refit's fault.
    """
    fix = (
        "run the stage profile again; if it stays, the definition of the feature and its bounds in "
        "pipeline/validation/schema.pbtxt disagree"
        if own
        else "mend or remove the images; if they are right, widen the schema that validate.schema names"
    )
    for name, info in sorted(anomalies.anomaly_info.items()):
        kinds = {info.Type.Name(reason.type) for reason in info.reason} - {_NOT_NAMED}
        if not kinds:
            continue
        outside = _outside(table, name, anomalies.baseline)
        yield Finding(
            "schema",
            "warn" if own and kinds == {_HARMLESS} else "block",
            f"feature {name}: {_words(info)}",
            fix,
            {"images": table.num_rows, "outside": outside.num_rows},
            tuple(outside["uri"].slice(0, EXAMPLES).to_pylist()),
        )
    if anomalies.HasField("dataset_anomaly_info"):
        yield Finding("schema", "block", _words(anomalies.dataset_anomaly_info), fix)


def _words(info: AnomalyInfo) -> str:
    return (info.description or info.short_description).strip().rstrip(".:")


def _outside(table: pa.Table, name: str, schema: Schema) -> pa.Table:
    """The rows whose value the schema forbids."""
    column = table[name]
    (feature,) = (each for each in schema.feature if each.name == name)
    allowed = pc.is_valid(column)
    if domain := schemas.values(schema, feature):
        allowed = pc.and_(allowed, pc.is_in(column, value_set=pa.array(domain.value, pa.string())))
    lowest, highest = schemas.bounds(feature)
    if not pa.types.is_string(column.type):
        inside = pc.and_(pc.greater_equal(column, lowest), pc.less_equal(column, highest))
        allowed = pc.and_(allowed, pc.fill_null(inside, False))
    return table.filter(pc.invert(allowed))
