"""The bus on Apache Kafka, by aiokafka. It keeps the rules of `topics/bus.py`.

All clients are made here, because aiokafka's defaults are wrong for this use: it would commit by itself,
begin at the end of a topic, acknowledge what one replica has, and follow a stale leader for five minutes.

Records are sent as batches that are built for each partition, which costs half of sending one by one.
Offsets are committed in the background, since an awaited commit takes 5 ms and more on a broker with default
settings.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from ssl import SSLError
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka import errors as kafka_errors
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.helpers import create_ssl_context

from protocol.secret import Secret
from topics.bus import BusRefused, BusUnavailable, Inbound, Outbound
from topics.catalogue import BATCH_OCTETS_MAX

log = structlog.get_logger()

_METADATA_AGE_MS: Final = 5_000  # a consumer may otherwise stay with a leader that is gone, and look healthy
_NEW_TOPICS_S: Final = 1.0  # so long a new topic may be taken for one that does not exist
_POLL_INTERVAL_MS: Final = 60_000  # a member that has not received for so long is stuck: others take over
_REFUSALS: Final = (
    kafka_errors.AuthenticationFailedError,
    kafka_errors.ClusterAuthorizationFailedError,
    kafka_errors.GroupAuthorizationFailedError,
    kafka_errors.InvalidSessionTimeoutError,
    kafka_errors.InvalidTopicError,
    kafka_errors.MessageSizeTooLargeError,
    kafka_errors.RecordListTooLargeError,
    kafka_errors.RecordTooLargeError,
    kafka_errors.SaslAuthenticationFailed,
    kafka_errors.TopicAuthorizationFailedError,
    kafka_errors.UnknownTopicOrPartitionError,
    kafka_errors.UnsupportedSaslMechanismError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaSettings:
    """Where the brokers are, and how long to wait for them."""

    bootstrap: str = "127.0.0.1:9092"
    """host:port of one or more brokers, separated by commas."""
    deadline_s: float = 5.0
    """How long a send, or reaching a broker at the start, may take before it raises BusUnavailable."""
    session_timeout_s: float = 6.0
    """A member that was killed loses its partitions after so long; the broker's least is 6 s by default."""
    client_id: str = "otway"
    """What the broker's logs show."""
    user: str = ""
    """Who this process is, by SCRAM-SHA-512; empty: brokers that ask nobody."""
    password: Secret | None = None
    """The user's password, UTF-8."""
    ca_file: Path | None = None
    """The certificate (PEM) that vouches for the brokers: TLS; None: none."""

    def as_user(self, user: str, password: Secret, *, bootstrap: str) -> KafkaSettings:
        """The same for somebody else, at this broker."""
        return replace(self, user=user, password=password, bootstrap=bootstrap)

    @property
    def client(self) -> dict[str, Any]:
        """What every aiokafka client is made with. Raises BusRefused for a certificate that does not read."""
        about: dict[str, Any] = {"bootstrap_servers": self.bootstrap, "client_id": self.client_id}
        protocol = "PLAINTEXT"
        if self.ca_file is not None:
            protocol = "SSL"
            try:
                about["ssl_context"] = create_ssl_context(cafile=str(self.ca_file))
            except (OSError, SSLError) as error:
                raise BusRefused(f"{self.ca_file}: {error}") from None
        if self.user:
            protocol = f"SASL_{protocol}"
            about |= {
                "sasl_mechanism": "SCRAM-SHA-512",
                "sasl_plain_username": self.user,
                "sasl_plain_password": self.password.reveal().decode() if self.password else "",
            }
        return {**about, "security_protocol": protocol}


@contextmanager
def translated(settings: KafkaSettings) -> Iterator[None]:
    """Raises the port's two errors for aiokafka's."""
    try:
        yield
    except TimeoutError:
        raise BusUnavailable(f"Kafka at {settings.bootstrap}: no answer in {settings.deadline_s} s") from None
    except _REFUSALS as error:
        raise BusRefused(f"Kafka at {settings.bootstrap}: {error}") from error
    except (kafka_errors.KafkaError, kafka_errors.ConsumerStoppedError, OSError) as error:
        raise BusUnavailable(f"Kafka at {settings.bootstrap}: {error}") from error


def make_consumer(settings: KafkaSettings, *topics: str, group: str | None = None) -> AIOKafkaConsumer:
    """A consumer from the first record on; without a group it commits nothing."""
    return AIOKafkaConsumer(
        *topics,
        **settings.client,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        metadata_max_age_ms=_METADATA_AGE_MS,
        session_timeout_ms=round(1000 * settings.session_timeout_s),
        heartbeat_interval_ms=round(1000 * settings.session_timeout_s / 6),
        max_poll_interval_ms=_POLL_INTERVAL_MS,
        rebalance_timeout_ms=round(1000 * settings.session_timeout_s),
    )


def make_producer(settings: KafkaSettings) -> AIOKafkaProducer:
    """A producer whose acknowledgement means that every in-sync replica has the record, once."""
    return AIOKafkaProducer(
        **settings.client,
        acks="all",
        enable_idempotence=True,
        linger_ms=0,
        max_batch_size=BATCH_OCTETS_MAX,  # with the default of 16 KiB a record costs half as much again
        request_timeout_ms=round(600 * settings.deadline_s),
        metadata_max_age_ms=_METADATA_AGE_MS,
    )


@asynccontextmanager
async def started(settings: KafkaSettings, client: Any) -> AsyncIterator[Any]:  # noqa: ANN401
    """An aiokafka client that is started within the deadline, and stopped in the end.

    Raises BusUnavailable, BusRefused.
    """
    try:
        with translated(settings):
            async with asyncio.timeout(settings.deadline_s):
                await client.start()
                await asyncio.sleep(0)  # a consumer's tasks that have never run would be missed by its stop
        yield client
    finally:
        await _stopped(settings, client)


async def _stopped(settings: KafkaSettings, client: Any) -> None:  # noqa: ANN401
    """A client that was given up; what it could not do within the deadline it does not do."""
    with suppress(TimeoutError, kafka_errors.KafkaError):
        async with asyncio.timeout(settings.deadline_s):
            await (client.close() if isinstance(client, AIOKafkaAdminClient) else client.stop())


class _Member(ConsumerRebalanceListener):  # type: ignore[misc]
    """Told by aiokafka when the group is shared out anew."""

    def __init__(self, bus: KafkaBus) -> None:
        self._bus = bus

    async def on_partitions_revoked(  # pyright: ignore[reportIncompatibleMethodOverride]  (aiokafka awaits it)
        self, revoked: Collection[TopicPartition]
    ) -> None:
        """Before anybody else gets them."""
        if revoked:
            await self._bus.drain()

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """From here on they are ours."""
        log.info("partitions", held=sorted(partition.partition for partition in assigned))


class KafkaBus:
    """One member of a group on one inbox, with the means to send to any topic."""

    def __init__(self, settings: KafkaSettings, group: str, inbox: str) -> None:
        """Nothing is connected before `start`."""
        self._settings = settings
        self._inbox = inbox
        self._group = group
        self._consumer: AIOKafkaConsumer | None = None
        self._producer: AIOKafkaProducer | None = None
        self._topics: set[str] = set()  # that exist
        self._ask_again_at = 0.0
        self._idle = asyncio.Event()  # no batch is with the loop
        self._idle.set()
        self._dealt_with: dict[TopicPartition, int] = {}  # the next offset of each, not committed yet
        self._to_commit = asyncio.Event()
        self._committing = asyncio.Lock()
        self._committer: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Join the group. Raises BusUnavailable, BusRefused."""
        consumer = make_consumer(self._settings, group=self._group)
        try:
            with translated(self._settings):
                async with asyncio.timeout(self._settings.deadline_s):
                    await consumer.start()
                    self._topics = await consumer.topics()
                    if self._inbox not in self._topics:
                        raise BusRefused(f"no topic {self._inbox}: create it with `otway topics create`")
                self._producer = await self._new_producer()
        except BaseException:
            await _stopped(self._settings, consumer)
            raise
        consumer.subscribe([self._inbox], listener=_Member(self))
        self._consumer = consumer
        self._committer = asyncio.create_task(self._keep_committing())

    async def receive(self, limit: int, wait_s: float) -> Sequence[Inbound]:
        """See Bus.receive."""
        assert self._consumer is not None
        assert self._idle.is_set()
        with translated(self._settings):
            found = await self._consumer.getmany(timeout_ms=round(1000 * wait_s), max_records=limit)
        records = [inbound(record) for batch in found.values() for record in batch]
        if records:
            self._idle.clear()
        return records

    async def send(self, records: Sequence[Outbound]) -> Sequence[Outbound]:
        """See Bus.send."""
        if not records:
            return ()
        try:
            with translated(self._settings):
                async with asyncio.timeout(self._settings.deadline_s):
                    return await self._send(records)
        except (BusUnavailable, BusRefused):
            await self._drop_producer()  # a failed batch leaves a gap in its numbers
            raise

    def commit(self, records: Sequence[Inbound]) -> None:
        """See Bus.commit."""
        for record in records:
            where = TopicPartition(record.topic, record.partition)
            self._dealt_with[where] = max(record.offset + 1, self._dealt_with.get(where, 0))
        self._idle.set()
        if records:
            self._to_commit.set()

    def give_back(self, records: Sequence[Inbound]) -> None:
        """See Bus.give_back."""
        assert self._consumer is not None
        first: dict[TopicPartition, int] = {}
        for record in records:
            where = TopicPartition(record.topic, record.partition)
            first[where] = min(record.offset, first.get(where, record.offset))
        for where, offset in first.items():
            with suppress(kafka_errors.IllegalStateError):  # no longer ours: it comes again elsewhere
                self._consumer.seek(where, offset)
        self._idle.set()

    def partitions(self) -> frozenset[int]:
        """See Bus.partitions."""
        assert self._consumer is not None
        return frozenset(where.partition for where in self._consumer.assignment())

    async def drain(self) -> None:
        """Returns when the batch under way is dealt with and committed, or after the deadline."""
        try:
            async with asyncio.timeout(self._settings.deadline_s):
                await self._idle.wait()
                await self._commit_all()
        except TimeoutError:  # whoever gets the partitions does this batch once more
            log.warning("not drained", within_s=self._settings.deadline_s)

    async def stop(self) -> None:
        """See Bus.stop."""
        if self._committer is not None:
            await self.drain()
            self._committer.cancel()
            with suppress(asyncio.CancelledError):
                await self._committer
        if self._consumer is not None:
            await _stopped(self._settings, self._consumer)
        await self._drop_producer()

    async def _send(self, records: Sequence[Outbound]) -> Sequence[Outbound]:
        if self._producer is None:
            self._producer = await self._new_producer()
        by_partition: dict[tuple[str, int], list[Outbound]] = defaultdict(list)
        for record in records:
            by_partition[record.topic, record.partition].append(record)
        known = await self._known({topic for topic, _ in by_partition})
        acknowledgements, undeliverable = [], []
        for (topic, partition), batch in by_partition.items():
            if topic not in known or partition not in await self._producer.partitions_for(topic):
                undeliverable += batch
                continue
            for built in self._built(batch):
                acknowledgements.append(  # noqa: PERF401  (an async comprehension would hide the order)
                    await self._producer.send_batch(built, topic, partition=partition)
                )
        await asyncio.gather(*acknowledgements)
        return undeliverable

    async def _known(self, topics: set[str]) -> set[str]:
        """Those that exist. A new name costs the broker a question, and all new names of a second just one:
        the producer itself would wait for each of them until its request times out."""
        assert self._consumer is not None
        now = asyncio.get_running_loop().time()
        if topics - self._topics and now >= self._ask_again_at:
            self._topics = await self._consumer.topics()
            self._ask_again_at = now + _NEW_TOPICS_S
        return topics & self._topics

    def _built(self, records: Iterable[Outbound]) -> Iterator[Any]:
        """The records of one partition as full batches, in their order. Raises RecordTooLargeError."""
        assert self._producer is not None
        batch = self._producer.create_batch()
        for record in records:
            fields = {
                "timestamp": None,
                "key": record.key,
                "value": record.value,
                "headers": list(record.headers),
            }
            if batch.append(**fields) is None:  # full
                yield batch
                batch = self._producer.create_batch()
                if batch.append(**fields) is None:
                    raise kafka_errors.RecordTooLargeError(f"{len(record.value or b'')} octets")
        yield batch

    async def _new_producer(self) -> AIOKafkaProducer:
        producer = make_producer(self._settings)
        try:
            await producer.start()
        except BaseException:
            await _stopped(self._settings, producer)
            raise
        return producer

    async def _drop_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await _stopped(self._settings, producer)

    async def _keep_committing(self) -> None:
        while True:
            await self._to_commit.wait()
            await self._commit_all()

    async def _commit_all(self) -> None:
        """Commit what was dealt with so far."""
        assert self._consumer is not None
        async with self._committing:
            self._to_commit.clear()
            held = self._consumer.assignment()
            offsets = {where: offset for where, offset in self._dealt_with.items() if where in held}
            self._dealt_with.clear()
            if not offsets:
                return
            try:
                await self._consumer.commit(offsets)
            except (kafka_errors.CommitFailedError, kafka_errors.IllegalStateError) as error:
                log.info("not committed: it comes again elsewhere", why=str(error))
            except kafka_errors.KafkaError as error:
                log.warning("not committed", why=str(error))


def inbound(record: Any) -> Inbound:  # noqa: ANN401
    """aiokafka's record as ours. A header without a value, which Kafka allows, becomes an empty one."""
    return Inbound(
        record.topic,
        record.partition,
        record.offset,
        record.key,
        record.value,
        tuple((name, value or b"") for name, value in record.headers),
        record.timestamp,
    )
