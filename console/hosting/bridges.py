"""What goes between others' media, in this process: `otway run transcoder`, `otway run conference`.

The engine has a thread of its own, so that neither waits for the other: sound is due each 20 ms, whatever the
agent decides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from agents.conference import Focus, FocusSettings
from agents.legs.transcoded_call import GIVE_UP_S
from agents.transcoder import Transcoder, TranscoderSettings
from chaos.lab import draw_codec
from console.hosting.network_function import NetworkFunction, Own, advertised_host
from console.hosting.roles import keyed_codec
from console.settings import CODEC_NAMES, Settings
from media.beside import Beside
from media.bridge import BridgeEngine
from media.engine import EngineSettings
from media.leg import MediaEvent
from protocol.names import Owner
from protocol.sealing import Random
from storage.records import RecordCodec
from topics.catalogue import CONFERENCE as FOCUS_INBOX
from topics.catalogue import TRANSCODER as TRANSCODER_INBOX
from topics.catalogue import Party


def bridge_beside(settings: EngineSettings, random: Random, on_event: Callable[[MediaEvent], None]) -> Beside:
    """A bridge engine in a thread. on_event: called on the loop of whoever starts it."""
    return Beside(
        lambda told: BridgeEngine(settings, random=random, on_event=told),
        on_event=on_event,
    )


def make_bridge(
    settings: Settings,
    random: Random,
    on_event: Callable[[MediaEvent], None],
    *,
    unheard_s: float | None = None,
) -> Beside:
    """The bridge engine of this process. unheard_s: of EngineSettings."""
    engine = EngineSettings(
        lines=settings.lines,
        host=settings.media_host,
        port=settings.media_port,
        advertised_host=advertised_host(settings),
        unheard_s=unheard_s,
    )
    return bridge_beside(engine, random, on_event)


def make_transcoding_bridge(
    settings: Settings, random: Random, on_event: Callable[[MediaEvent], None]
) -> Beside:
    """A transcoder's: an end is heard when it has the notice, which is repeated for so long."""
    return make_bridge(settings, random, on_event, unheard_s=GIVE_UP_S)


def make_transcoder(own: Own) -> Transcoder:
    """The transcoder's agent."""
    return Transcoder(
        TranscoderSettings(
            identity=own.identity,
            key_id=own.key_id,
            key=own.key,
            instance=own.instance,
            lines=own.lines,
            codecs=CODEC_NAMES,
        )
    )


def make_focus(own: Own) -> Focus:
    """The agent of the focus."""
    return Focus(
        FocusSettings(
            identity=own.identity,
            key_id=own.key_id,
            key=own.key,
            instance=own.instance,
            lines=own.lines,
            codecs=CODEC_NAMES,
        )
    )


def _throwaway(_: Settings, random: Random) -> RecordCodec:
    """A transcoder has no record with secrets."""
    return draw_codec(random)


TRANSCODER: Final = NetworkFunction(
    owner=Owner.TRANSCODER,
    party=Party.TRANSCODER,
    inbox=TRANSCODER_INBOX,
    make_media=make_transcoding_bridge,
    make_agent=make_transcoder,
    make_codec=_throwaway,
)

CONFERENCE: Final = NetworkFunction(
    owner=Owner.FOCUS,
    party=Party.CONFERENCE,
    inbox=FOCUS_INBOX,
    make_media=make_bridge,
    make_agent=make_focus,
    make_codec=keyed_codec,  # the keys of its conferences are in its records
)
