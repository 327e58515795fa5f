"""Processes of network functions in the embedded deployment: their media, tapped, and the keys of those."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from agents.decision import Agent
from chaos.wiretap import Wiretap
from console.hosting.bridges import CONFERENCE, TRANSCODER
from console.hosting.network_function import Media, NetworkFunction, own_of
from console.hosting.voicemail import VOICEMAIL
from console.settings import Settings
from media.leg import MediaEvent, MediaInstruction, OpenMedia, RenewMedia
from protocol.sealing import Random
from protocol.secret import Secret
from storage.users_file import Device
from topics.catalogue import Party

FUNCTIONS: Final[dict[str, NetworkFunction[Any]]] = {
    Party.VOICEMAIL: VOICEMAIL,
    Party.TRANSCODER: TRANSCODER,
    Party.CONFERENCE: CONFERENCE,
}
"""By the name of their role."""


def role_of(instance: str) -> str:
    """The network function of an instance, `transcoder` of `transcoder-2`; "" for any other name."""
    role, dash, number = instance.rpartition("-")
    if not dash or not number.isdecimal():
        role = instance
    return role if role in FUNCTIONS else ""


@dataclass(slots=True)
class Instances:
    """All processes of network functions that run."""

    random: Random
    wiretap: Wiretap
    roots: dict[str, list[Secret]] = field(default_factory=dict)
    """The root keys that each instance's media engine has been given so far, in their order."""
    _media: dict[str, Media] = field(default_factory=dict)

    async def open(
        self, name: str, device: Device, lines: int, on_event: Callable[[MediaEvent], None]
    ) -> tuple[Agent, Callable[[MediaInstruction], None]]:
        """The agent of a new process, and what carries out what it decides about media. Raises OSError."""
        function = FUNCTIONS[role_of(name)]
        media = function.make_media(Settings(lines=lines), self.random, on_event)
        addresses = await media.start()
        self._media[name] = media
        for line in addresses:
            await self.wiretap.tap(name, line)
        given = self.roots.setdefault(name, [])

        def carry_out(instruction: MediaInstruction) -> None:
            if isinstance(instruction, OpenMedia | RenewMedia):
                given.append(instruction.leg.root)
            media.carry_out(instruction)

        return function.make_agent(own_of(device, addresses, self.random)), carry_out

    async def close(self, name: str) -> None:
        """End its media."""
        await self._media.pop(name).stop()

    async def close_all(self) -> None:
        """End the media of all."""
        for name in list(self._media):
            await self.close(name)
