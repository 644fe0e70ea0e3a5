"""TFDV's judgement of the feature statistics by `schema.pbtxt`, which is written by hand.

The schema says what features can be at all (a share is 0-1, an entropy 0-8 bits), so an anomaly means that a table
is damaged or was written by other code. It is never inferred from the data that it judges.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import tensorflow_data_validation as tfdv
from google.protobuf import text_format
from tensorflow_metadata.proto.v0.anomalies_pb2 import Anomalies

from pipeline.validation.verdict import Finding

SCHEMA = Path(__file__).with_name("schema.pbtxt")
# A format or mode that nobody has thought of is worth a look; it decodes, so it does no harm.
_HARMLESS = "ENUM_TYPE_UNEXPECTED_STRING_VALUES"


def find(statistics: Path) -> Anomalies:
    """The anomalies of a binary `DatasetFeatureStatisticsList`."""
    return tfdv.validate_statistics(tfdv.load_stats_binary(str(statistics)), tfdv.load_schema_text(str(SCHEMA)))


def to_text(anomalies: Anomalies) -> str:
    """Text proto."""
    return text_format.MessageToString(anomalies)


def findings(anomalies: Anomalies) -> Iterator[Finding]:
    for name, info in sorted(anomalies.anomaly_info.items()):
        kinds = {info.Type.Name(reason.type) for reason in info.reason}
        yield Finding(
            f"schema-{name}",
            "warn" if kinds == {_HARMLESS} else "block",
            f"feature {name}: {info.description.rstrip('.')}",
            "run the stage profile again; if it stays, the definition of the feature and its bounds in "
            "pipeline/validation/schema.pbtxt disagree",
        )
    if anomalies.HasField("dataset_anomaly_info"):
        yield Finding(
            "schema",
            "block",
            anomalies.dataset_anomaly_info.description.rstrip("."),
            "run the stage profile again",
        )
