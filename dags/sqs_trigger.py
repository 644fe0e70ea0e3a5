"""Watches an SQS queue that S3 sends its notifications to, and tells when new images have arrived.

Airflow's `MessageQueueTrigger` deletes messages before their event is stored and lets S3's test event through. This one
runs in the ack mode of Airflow's shared streams: `advance` is called once the event is in Airflow's database, and only
then are its messages deleted. Whatever fails before that, the queue delivers them again.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import s3_notifications
from airflow.triggers.base import BaseEventTrigger, TriggerEvent
from airflow.triggers.shared_stream import AdvanceItem, SharedStreamProducer

logger = logging.getLogger(__name__)
AT_ONCE = 10  # messages of one call, SQS's limit
LONG_POLL_SECONDS = 20  # SQS's limit
PERSIST_SECONDS = 600  # from an event to its messages' deletion; Airflow waits 300 s for its database
RETRY_SECONDS = 15.0
EXAMPLES = 5


class SqsTrigger(BaseEventTrigger):
    """An event for each batch of notifications about objects below `source`.

    Args:
        queue: its address.
        source: s3://bucket/prefix.
        aws_connection: id of Airflow's connection; None: the standard AWS configuration.
        quiet_seconds: without a notification, before an event.
        at_most_seconds: after the first notification an event comes anyway.
    """

    def __init__(
        self,
        *,
        queue: str,
        source: str,
        aws_connection: str | None,
        quiet_seconds: float,
        at_most_seconds: float,
    ) -> None:
        super().__init__()
        self.queue_url = queue
        self.source = source
        self.aws_connection = aws_connection
        self.quiet_seconds = quiet_seconds
        self.at_most_seconds = at_most_seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        arguments = {"queue": self.queue_url}
        names = ("source", "aws_connection", "quiet_seconds", "at_most_seconds")
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            **arguments,
            **{name: getattr(self, name) for name in names},
        }

    def shared_stream_key(self) -> Hashable:
        return ("sqs", self.queue_url, self.source)

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> SharedStreamProducer:
        return Notifications(**kwargs)

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Any]) -> AsyncIterator[TriggerEvent]:
        async for batch in shared_stream:
            yield TriggerEvent(batch)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        raise NotImplementedError("SqsTrigger runs as a shared stream only, which Airflow has from 3.3 on.")
        yield


@dataclass
class Pending:
    """Messages that were received and are in no event yet. Times are seconds of a clock that never goes back."""

    quiet_seconds: float
    at_most_seconds: float
    receipts: dict[str, str] = field(default_factory=dict)  # message id to its last receipt handle
    keys: dict[str, None] = field(default_factory=dict)  # in order of arrival
    first: float = 0.0
    last: float = 0.0

    def add(self, message_id: str, receipt: str, keys: Sequence[str], now: float) -> None:
        if not self.receipts:
            self.first = now
        if message_id not in self.receipts:  # else the queue has delivered it twice
            self.last = now
        self.receipts[message_id] = receipt
        self.keys |= dict.fromkeys(keys)

    def left(self, now: float) -> float:
        """Seconds until these are to become an event; infinite if there are none."""
        if not self.receipts:
            return math.inf
        return min(self.last + self.quiet_seconds, self.first + self.at_most_seconds) - now


class Notifications(SharedStreamProducer):
    """Receives messages, gathers those that tell of new images into batches, and deletes them afterwards."""

    def __init__(
        self, *, queue: str, source: str, aws_connection: str | None, quiet_seconds: float, at_most_seconds: float
    ) -> None:
        self.queue, self.source, self.aws_connection = queue, source, aws_connection
        bucket, _, prefix = source.removeprefix("s3://").partition("/")
        self.bucket, self.prefix = bucket, f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self.quiet_seconds, self.at_most_seconds = quiet_seconds, at_most_seconds
        self._client: Any = None

    async def open_stream(self) -> AsyncIterator[tuple[Any, Any]]:
        from airflow.providers.amazon.aws.hooks.sqs import SqsHook
        from botocore.exceptions import BotoCoreError, ClientError

        pending = Pending(self.quiet_seconds, self.at_most_seconds)
        hook = SqsHook(aws_conn_id=self.aws_connection)
        async with await hook.get_async_conn() as client:
            self._client = client
            while True:
                try:
                    await self._receive(pending)
                except (BotoCoreError, ClientError) as error:
                    logger.warning("The queue %s does not answer: %s. Trying again.", self.queue, error)
                    await asyncio.sleep(RETRY_SECONDS)
                if pending.left(time.monotonic()) > 0:
                    continue
                names = list(pending.keys)
                batch = {"source": self.source, "objects": len(names), "examples": names[:EXAMPLES]}
                yield batch, dict(pending.receipts)
                pending = Pending(self.quiet_seconds, self.at_most_seconds)

    async def advance(self, batch: Sequence[AdvanceItem]) -> None:
        """Delete the messages of events that are stored; the others come again."""
        for item in batch:
            if item.outcome.is_clean:
                await self._delete(item.broker_payload)

    async def _receive(self, pending: Pending) -> None:
        # With pending messages it comes back when they are due.
        wait = max(0, min(LONG_POLL_SECONDS, math.ceil(min(pending.left(time.monotonic()), LONG_POLL_SECONDS))))
        answer = await self._client.receive_message(
            QueueUrl=self.queue,
            MaxNumberOfMessages=AT_ONCE,
            WaitTimeSeconds=wait,
            # Nobody else gets them, and neither do we again, while they wait to become an event and that to be stored.
            VisibilityTimeout=math.ceil(self.at_most_seconds) + PERSIST_SECONDS,
        )
        of_no_interest = {}
        for message in answer.get("Messages", ()):
            message_id, receipt = message["MessageId"], message["ReceiptHandle"]
            try:
                keys = s3_notifications.keys(message["Body"], self.bucket, self.prefix)
            except ValueError as error:
                # Left in the queue: its redrive policy hands it to a dead-letter queue, or it is told of again.
                logger.error("Message %s in %s is not understood: %s.", message_id, self.queue, error)
                continue
            if keys:
                pending.add(message_id, receipt, keys, time.monotonic())
            else:
                of_no_interest[message_id] = receipt
        if of_no_interest:
            logger.info("%d messages are not about %s.", len(of_no_interest), self.source)
            await self._delete(of_no_interest)

    async def _delete(self, receipts: Mapping[str, str]) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        for some in _chunks(list(receipts.items()), AT_ONCE):
            entries = [{"Id": str(number), "ReceiptHandle": receipt} for number, (_, receipt) in enumerate(some)]
            try:
                answer = await self._client.delete_message_batch(QueueUrl=self.queue, Entries=entries)
            except (BotoCoreError, ClientError) as error:
                logger.warning("%d messages could not be deleted and will come again: %s.", len(some), error)
                continue
            if failed := answer.get("Failed"):
                logger.warning("%d messages could not be deleted and will come again: %s.", len(failed), failed[0])


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]
