"""The media engines of network functions that are between others."""

from __future__ import annotations

import random
from typing import Any

import pytest

from agents.legs.transcoded_call import GIVE_UP_S
from console.hosting.bridges import CONFERENCE, TRANSCODER
from console.hosting.network_function import NetworkFunction
from console.settings import Settings
from media.beside import Beside
from media.bridge import BridgeEngine


@pytest.mark.parametrize(("function", "unheard_s"), [(TRANSCODER, GIVE_UP_S), (CONFERENCE, None)])
async def test_a_transcoder_waits_for_its_ends_as_long_as_it_repeats_its_notices(
    function: NetworkFunction[Any], unheard_s: float | None
) -> None:
    media = function.make_media(Settings(lines=2), random.Random(1).randbytes, lambda _: None)
    assert isinstance(media, Beside)
    await media.start()
    assert isinstance(media._engine, BridgeEngine)
    assert media._engine._settings.unheard_s == unheard_s
    await media.stop()
