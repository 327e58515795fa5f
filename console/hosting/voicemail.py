"""The mailbox in this process, its recorder and the loop that serves both: `otway run voicemail`.

Any number of processes may run: each records what it has answered, and takes over what another's partitions
had. One that is told to stop closes what it records, with what there is, and tells the callers.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import structlog

from agents.runtime import Loop
from agents.voicemail import Voicemail, VoicemailSettings
from chaos.lab import draw_codec
from console.hosting.operations import operated, telling
from console.hosting.readiness import Watched
from console.hosting.roles import together, until_told_to_stop
from console.settings import Settings
from media.leg import MediaEvent
from media.recorder import Recorder, RecorderSettings
from protocol.names import Owner
from protocol.sealing import Random
from storage.redis_store import RedisStore
from storage.users_file import Device, UsersBroken, read_users
from topics.catalogue import VOICEMAIL, Party
from topics.kafka import KafkaBus

log = structlog.get_logger()

_LAST_WORDS_S: Final = 0.5  # for the loop to store what the recorder still had, before it is told to stop
_ANY_ADDRESS: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104


def read_mailbox(users: Path) -> Device:
    """The mailbox of a users file, with its key. Raises UsersBroken."""
    mailboxes = [device for device in read_users(users) if device.owner is Owner.MAILBOX]
    if len(mailboxes) != 1:
        raise UsersBroken(f'{users}: {len(mailboxes)} devices with kind = "mailbox"; one is needed')
    return mailboxes[0]


def recorder_settings(settings: Settings) -> RecorderSettings:
    """The recorder of this process. Behind any address callers are told the name of this machine, if nothing
    else was said: each process of a mailbox has its own."""
    here = socket.gethostname().lower() if settings.media_host in _ANY_ADDRESS else None
    return RecorderSettings(
        lines=settings.lines,
        host=settings.media_host,
        port=settings.media_port,
        advertised_host=settings.media_advertised or here,
    )


async def run_voicemail(
    mailbox: Device, settings: Settings, *, clock: Callable[[], int], random: Random
) -> None:
    """The mailbox until SIGTERM or SIGINT. mailbox: as read_mailbox has it.

    Raises OSError, SettingsBroken, BusUnavailable, BusRefused, StoreRefused, GaveUp.
    """
    assert mailbox.psk is not None
    watched = Watched(Party.VOICEMAIL)
    name = settings.instance or f"{socket.gethostname()}-{os.getpid()}"
    leaving, stopping = until_told_to_stop(), asyncio.Event()

    def told(event: MediaEvent) -> None:
        loop.tell(event)

    recorder = Recorder(recorder_settings(settings), on_event=told)
    bus = KafkaBus(settings.kafka_settings, Party.VOICEMAIL, VOICEMAIL.name)

    async def last_words() -> None:
        await leaving.wait()
        recorder.close_all()
        await asyncio.sleep(_LAST_WORDS_S)
        stopping.set()

    async with AsyncExitStack() as closing:
        closing.enter_context(operated(settings, Party.VOICEMAIL, name, [watched]))
        lines = await recorder.start()
        closing.push_async_callback(recorder.stop)
        agent = Voicemail(
            VoicemailSettings(
                identity=mailbox.identity,
                key_id=mailbox.psk_id,
                key=mailbox.psk,
                instance=random(8).hex(),
                lines=lines,
            )
        )
        loop = Loop(
            agent,
            bus,
            RedisStore(settings.redis_settings),
            draw_codec(random),  # a mailbox has no record with secrets
            clock=clock,
            random=random,
            carry_out=recorder.carry_out,
            vitals=watched.vitals,
        )
        closing.push_async_callback(bus.stop)  # once more: a status may have connected again meanwhile
        await bus.start()
        log.info("running", mailbox=mailbox.identity, lines=len(lines))
        async with telling(bus, watched, name, clock=clock):
            await together([loop.run(stopping), last_words()], leaving)
    log.info("stopped", handled=watched.vitals.handled)
