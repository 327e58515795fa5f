"""aiokafka's clients as this project uses them: settings, access, errors.

All clients are made here, because aiokafka's defaults are wrong for this use: it would commit by itself,
begin at the end of a topic, acknowledge what one replica has, and follow a stale leader for five minutes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from ssl import SSLError
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka import errors as kafka_errors
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.helpers import create_ssl_context

from protocol.secret import Secret
from topics.bus import BusRefused, BusUnavailable
from topics.catalogue import BATCH_OCTETS_MAX

_METADATA_AGE_MS: Final = 5_000  # a consumer may otherwise stay with a leader that is gone, and look healthy
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
    leave_s: float = 2.0
    """How long `stop` may take in all; what was not done by then is not done."""
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
        await stopped(client, settings.deadline_s)


async def stopped(client: Any, within_s: float) -> None:  # noqa: ANN401
    """A client that was given up; what it could not do in the time it does not do.

    It is stopped by a task of its own, because aiokafka swallows a cancellation here and there.
    """
    closes = isinstance(client, AIOKafkaAdminClient)
    stopping = asyncio.create_task(client.close() if closes else client.stop())
    try:
        await asyncio.wait({stopping}, timeout=within_s)
        if stopping.done():
            with suppress(kafka_errors.KafkaError, asyncio.CancelledError):
                stopping.result()
    finally:
        stopping.cancel()
