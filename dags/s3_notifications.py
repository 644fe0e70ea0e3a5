"""What S3 says about new, replaced and removed objects, in each of the forms in which a queue gets it:

S3's own notifications (`Records`), the same wrapped by SNS (`Type: Notification`), and EventBridge's events.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote_plus

# Of `eventName`, which begins with "s3:" or not. Restoring an object from an archive makes it readable.
_NEWS = ("ObjectCreated:", "ObjectRemoved:", "ObjectRestore:Completed", "LifecycleExpiration:")
_EVENTBRIDGE_NEWS = ("Object Created", "Object Deleted", "Object Restore Completed")


def keys(body: str, bucket: str, prefix: str) -> list[str]:
    """Decoded keys below s3://bucket/prefix that a message is about; none for S3's test event, other prefixes, other
    buckets and events that change no object.

    Raises `ValueError`, with what is wrong, if it is no message of S3's.
    """
    return [key for where, key in _objects(_json(body)) if where == bucket and key.startswith(prefix)]


def _objects(message: dict[str, Any]) -> list[tuple[str, str]]:
    """(bucket, decoded key) of each object that the message is about."""
    try:
        if message.get("Event") == "s3:TestEvent":
            return []
        if message.get("Type") == "Notification" and "TopicArn" in message:
            return _objects(_json(message["Message"]))
        if message.get("source") == "aws.s3" and "detail-type" in message:
            if message["detail-type"] not in _EVENTBRIDGE_NEWS:
                return []
            detail = message["detail"]
            return [(_text(detail["bucket"]["name"]), _text(detail["object"]["key"]))]  # not encoded there
        return [
            (_text(record["s3"]["bucket"]["name"]), unquote_plus(_text(record["s3"]["object"]["key"])))
            for record in message["Records"]
            if record["eventName"].removeprefix("s3:").startswith(_NEWS)
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"expected a notification of S3's, got {_start(message)} ({error!r})") from None


def _json(text: Any) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, TypeError):
        raise ValueError(f"expected JSON, got {_start(text)}") from None
    if not isinstance(content, dict):
        raise ValueError(f"expected a JSON object, got {_start(content)}")
    return content


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _start(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}…"
