"""The mailbox in this process: `otway run voicemail`.

Each process records what it has answered. One that is told to stop closes what it records, with what there
is, and tells the callers. It needs no media libraries: it keeps packets that it cannot read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from agents.voicemail import Voicemail, VoicemailSettings
from chaos.lab import draw_codec
from console.hosting.network_function import NetworkFunction, Own, advertised_host
from console.settings import Settings
from media.leg import MediaEvent
from media.recorder import Recorder, RecorderSettings
from protocol.names import Owner
from protocol.sealing import Random
from storage.records import RecordCodec
from topics.catalogue import VOICEMAIL as INBOX
from topics.catalogue import Party


def recorder_settings(settings: Settings) -> RecorderSettings:
    """The recorder of this process."""
    return RecorderSettings(
        lines=settings.lines,
        host=settings.media_host,
        port=settings.media_port,
        advertised_host=advertised_host(settings),
    )


def _recorder(settings: Settings, _: Random, on_event: Callable[[MediaEvent], None]) -> Recorder:
    return Recorder(recorder_settings(settings), on_event=on_event)


def make_agent(own: Own) -> Voicemail:
    """The mailbox's agent."""
    return Voicemail(
        VoicemailSettings(
            identity=own.identity, key_id=own.key_id, key=own.key, instance=own.instance, lines=own.lines
        )
    )


def _codec(_: Settings, random: Random) -> RecordCodec:
    """A mailbox has no record with secrets."""
    return draw_codec(random)


VOICEMAIL: Final = NetworkFunction(
    owner=Owner.MAILBOX,
    party=Party.VOICEMAIL,
    inbox=INBOX,
    make_media=_recorder,
    make_agent=make_agent,
    make_codec=_codec,
    on_leaving=Recorder.close_all,
)
