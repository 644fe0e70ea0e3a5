"""The queue's watcher in Airflow's own shared stream, against moto's SQS over HTTP."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import boto3
import pytest
from airflow.triggers.shared_stream import SharedStreamManager
from s3_notifications import keys
from sqs_trigger import SqsTrigger

from tests import aws

SOURCE = "s3://photos/inbox"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with aws.at_once() as address:
        yield address


@pytest.fixture
def sqs(address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    aws.configure(monkeypatch, address)
    client = boto3.Session().client("sqs")
    yield client
    client.close()


@pytest.fixture
def queue(sqs: Any, request: pytest.FixtureRequest) -> str:
    # Shorter than any event takes: what is received must stay hidden by the receiver's own wish.
    name = f"new-{abs(hash(request.node.name))}"
    return str(sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": "1"})["QueueUrl"])


def created(*names: str, bucket: str = "photos", event: str = "ObjectCreated:Put") -> str:
    return json.dumps(
        {"Records": [{"eventName": event, "s3": {"bucket": {"name": bucket}, "object": {"key": n}}} for n in names]}
    )


TEST_EVENT = json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "photos"})
EVENTBRIDGE = json.dumps(
    {"source": "aws.s3", "detail-type": "Object Created"}
    | {"detail": {"bucket": {"name": "photos"}, "object": {"key": "inbox/cat/e+%20.jpg"}}}
)


class Triggerer:
    """What the triggerer does with a watcher, but for the database: `store` says whether that takes an event."""

    def __init__(self, trigger: SqsTrigger) -> None:
        self.manager = SharedStreamManager(ack_timeout=20)
        self.trigger = trigger
        self.key = trigger.shared_stream_key()
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.stores = True

    async def run(self) -> None:
        stream = self.manager.subscribe(trigger_id=1, trigger=self.trigger, key=self.key)
        async for event in self.trigger.filter_shared_stream(stream):
            seq = self.manager.bind_pending_event(trigger_id=1, key=self.key)
            self.events.put_nowait(event.payload)
            if self.stores and seq is not None:
                asyncio.get_running_loop().call_later(0.05, self.manager.confirm_persisted, [seq])

    async def event(self, seconds: float) -> dict[str, Any] | None:
        try:
            return await asyncio.wait_for(self.events.get(), seconds)
        except TimeoutError:
            return None


@asynccontextmanager
async def watching(
    queue: str, *, quiet: float = 0.5, at_most: float = 60, stores: bool = True
) -> AsyncIterator[Triggerer]:
    arguments = SqsTrigger(
        queue=queue, source=SOURCE, aws_connection=None, quiet_seconds=quiet, at_most_seconds=at_most
    ).serialize()[1]
    triggerer = Triggerer(SqsTrigger(**arguments))
    triggerer.stores = stores
    task = asyncio.create_task(triggerer.run())
    try:
        yield triggerer
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await triggerer.manager.stop_all()


def left(sqs: Any, queue: str) -> int:
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    attributes = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=names)["Attributes"]
    return sum(map(int, attributes.values()))


async def until(condition: Callable[[], bool]) -> None:
    deadline = asyncio.get_running_loop().time() + 20
    while not await asyncio.to_thread(condition):
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.05)


def test_a_burst_is_one_event_and_its_messages_are_deleted_afterwards(sqs: Any, queue: str) -> None:
    async def scenario() -> None:
        async with watching(queue, quiet=2) as triggerer:
            for number in range(3):
                names = [f"inbox/cat/{number}-{item}+%C3%A4.jpg" for item in range(8)]
                entries = [{"Id": str(i), "MessageBody": created(n)} for i, n in enumerate(names)]
                await asyncio.to_thread(sqs.send_message_batch, QueueUrl=queue, Entries=entries)
            found = await triggerer.event(60)
            assert found is not None
            assert found["objects"] == 24
            assert all(name.endswith(" ä.jpg") for name in found["examples"])
            await until(lambda: left(sqs, queue) == 0)
            assert await triggerer.event(3) is None

    asyncio.run(scenario())


def test_nothing_is_deleted_before_airflow_has_stored_the_event(sqs: Any, queue: str) -> None:
    sqs.send_message(QueueUrl=queue, MessageBody=created("inbox/cat/a.jpg"))

    async def not_stored() -> None:
        async with watching(queue, stores=False) as triggerer:
            assert await triggerer.event(20) is not None
            await asyncio.sleep(0.5)
            assert left(sqs, queue) == 1

    asyncio.run(not_stored())
    assert left(sqs, queue) == 1


def test_a_steady_stream_does_not_put_off_the_event_for_ever(sqs: Any, queue: str) -> None:
    async def scenario() -> None:
        async with watching(queue, quiet=1.5, at_most=2.5) as triggerer:
            for number in range(40):
                await asyncio.to_thread(
                    sqs.send_message, QueueUrl=queue, MessageBody=created(f"inbox/cat/{number}.jpg")
                )
                found = await triggerer.event(0.3)
                if found is not None:
                    break
            assert found is not None
            assert found["objects"] >= 2

    asyncio.run(scenario())


def test_test_events_and_other_places_start_nothing_and_odd_messages_stay(
    sqs: Any, queue: str, caplog: pytest.LogCaptureFixture
) -> None:
    for body in (TEST_EVENT, created("elsewhere/a.jpg"), created("inbox/a.jpg", bucket="other"), "not { json", "[1]"):
        sqs.send_message(QueueUrl=queue, MessageBody=body)

    async def scenario() -> None:
        async with watching(queue) as triggerer:
            await until(lambda: left(sqs, queue) == 2)
            assert await triggerer.event(1) is None
            await asyncio.to_thread(sqs.send_message, QueueUrl=queue, MessageBody=EVENTBRIDGE)
            found = await triggerer.event(20)
            assert found == {"source": SOURCE, "objects": 1, "examples": ["inbox/cat/e+%20.jpg"]}
            await until(lambda: left(sqs, queue) == 2)  # for the dead-letter queue

    with caplog.at_level(logging.ERROR):
        asyncio.run(scenario())
    assert sum("is not understood" in line for line in caplog.text.splitlines()) == 2
    assert "not { json" in caplog.text


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (created("inbox/a+b%2Bc/%C3%A4.jpg"), ["inbox/a b+c/ä.jpg"]),
        (created("inbox/cat/x.jpg", event="ObjectRemoved:Delete"), ["inbox/cat/x.jpg"]),
        (created("inbox/cat/x.jpg", event="s3:ObjectCreated:CompleteMultipartUpload"), ["inbox/cat/x.jpg"]),
        (created("inbox/cat/x.jpg", event="ObjectTagging:Put"), []),
        (created("inbox/a", "inbox/b", "inboxes/c"), ["inbox/a", "inbox/b"]),
        (json.dumps({"Type": "Notification", "TopicArn": "arn:x", "Message": created("inbox/a")}), ["inbox/a"]),
        (json.dumps({"Type": "Notification", "TopicArn": "arn:x", "Message": TEST_EVENT}), []),
        (EVENTBRIDGE, ["inbox/cat/e+%20.jpg"]),
        (json.dumps({"source": "aws.s3", "detail-type": "Object Tags Added", "detail": {}}), []),
        (TEST_EVENT, []),
    ],
)
def test_what_messages_say(body: str, expected: list[str]) -> None:
    assert keys(body, "photos", "inbox/") == expected


@pytest.mark.parametrize(
    "body",
    [
        "",
        "null",
        "{}",
        '{"Records": [{}]}',
        '{"Records": 3}',
        '{"Records": [{"eventName": 1}]}',
        '{"Records": [{"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "photos"}, "object": {"key": 3}}}]}',
        '{"source": "aws.s3", "detail-type": "Object Created", "detail": []}',
        '{"Type": "Notification", "TopicArn": "t", "Message": "x"}',
    ],
)
def test_what_is_no_message_of_s3_is_an_error_that_shows_it(body: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        keys(body, "photos", "inbox/")
