"""`otway demo fork`: bob has two devices, both answer in the same instant, and only one of them can listen.

bootstrap -> dial -> two 200 OKs -> one ACK, one BYE -> both samples played -> who could decrypt what
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import numpy as np

from console.embedded import Hop, Town, TownSettings
from console.scenarios.evidence import HEARD_WELL, NOTES, Access, Voice, table, tried
from console.scenarios.telling import Telling
from media.likeness import likeness
from media.pcm import SAMPLE_HZ, Pcm
from media.samples import callee_sample, caller_sample
from protocol.profile import HARDENED, Profile
from protocol.sealing import Random
from protocol.secret import Secret
from topics.messages import Report, ReportEvent

CALLER: Final = "alice"
DEVICES: Final = ("bob", "bob-2")
_TAIL_S: Final = 0.3  # what is on its way when the sample has ended still arrives
_NOTES: Final = {
    **NOTES,
    "kms": "it made both Ks",
}


class Forked(msgspec.Struct, frozen=True, kw_only=True):
    """How it went: what `--json` prints and fork.json holds."""

    call: str
    answered_by: str
    lost: list[str]
    keys_differ: bool  # each device had a K of its own
    kms_still_holds: dict[str, bool]  # by device, once the caller has settled
    access: list[Access]
    heard: dict[str, float]  # how like what the other side said, 0 to 1

    @property
    def good(self) -> bool:
        """One device talks, the other can open nothing, and the KMS has forgotten its key."""
        insiders = {CALLER, self.answered_by, "kms"}
        return (
            self.keys_differ
            and len(self.lost) == len(DEVICES) - 1
            and all(held is (device == self.answered_by) for device, held in self.kms_still_holds.items())
            and len(self.heard) == 2
            and all(alike > HEARD_WELL for alike in self.heard.values())
            and all(
                all(each.voices.values()) if each.party in insiders else not any(each.voices.values())
                for each in self.access
            )
        )


class ForkDemo:
    """One call from alice to bob's two devices."""

    def __init__(
        self,
        *,
        clock: Callable[[], int],
        random: Random,
        show: Callable[[str], None],
        sound: Pcm | None = None,
        profile: Profile = HARDENED,
    ) -> None:
        """show: takes each line of the account as it happens. sound: what alice says."""
        self._telling = Telling(show, (CALLER, "cscf", *DEVICES, "kms"))
        said = caller_sample() if sound is None else sound
        self._sounds = {CALLER: said, **{device: callee_sample() for device in DEVICES}}
        self._town = Town(
            TownSettings(sounds=self._sounds, profile=profile, answer_after_s=1),
            clock=clock,
            random=random,
            on_hop=self._happened,
        )
        self._held: dict[str, list[Secret]] = {}
        self.heard: dict[str, Pcm] = {}
        """What each side heard, once the call is over."""

    async def run(self) -> Forked:
        """Raises OSError without UDP sockets on loopback, TimeoutError when the call comes to nothing."""
        town = self._town
        try:
            await town.start()
            await town.registered()
            self._telling.begin("alice has one device, bob has two; each has its own key\n")
            town.wishes.dial(CALLER, DEVICES[0])
            await town.until(lambda: town.told(ReportEvent.CONFIRMED) != [])
            longest_s = max(sound.size for sound in self._sounds.values()) / SAMPLE_HZ
            await asyncio.sleep(longest_s + _TAIL_S)
            kept = {self._host(device): held for device, held in town.remembered.granted_keys().items()}
            town.hang_up(CALLER)
            await town.until(lambda: len(set(town.told(ReportEvent.MEDIA))) == 1 + len(DEVICES))
            return self._outcome(kept)
        finally:
            await town.stop()

    def _happened(self, hop: Hop) -> None:
        match hop.message:
            case Report(event=ReportEvent.UP):
                # at this instant both devices hold what they were granted: let them keep it for their attempt
                parties = (CALLER, *DEVICES, "kms", "bsf", "cscf")
                self._held = {party: self._town.holdings(party) for party in parties}
                self._telling.note("alice takes the first valid answer")
            case Report(event=ReportEvent.CONFIRMED):
                self._telling.note(f"{hop.sender} knows that alice holds K")
            case Report(event=ReportEvent.ENDED, reason=reason):
                self._telling.note(f"over at {hop.sender}: {reason}")
            case _:
                self._telling.draw(hop)

    def _outcome(self, kept: dict[str, bool]) -> Forked:
        town = self._town
        [winner] = town.told(ReportEvent.CONFIRMED)
        lost = [device for device in DEVICES if device != winner]
        alice, bob = town.devices[CALLER].identity, town.devices[winner].identity
        voices = {
            "alice's voice": Voice(_main_stream(town.wiretap.srtp(winner)), alice, bob),
            "bob's voice": Voice(_main_stream(town.wiretap.srtp(CALLER)), bob, alice),
        }
        notes = {**_NOTES, **dict.fromkeys(lost, "answered too, and had a K of its own")}
        for name in (CALLER, winner):
            self.heard[name] = np.concatenate(town.heard(name))
        return Forked(
            call=next(r.call.hex() for r in town.reports if r.event is ReportEvent.UP and r.call),
            answered_by=winner,
            lost=lost,
            keys_differ=len(self._calls_keys()) == len(DEVICES),
            kms_still_holds=kept,
            access=tried({**self._held, "wiretap": []}, voices, notes),
            heard={
                name: round(likeness(self.heard[name], self._sounds[other]), 3)
                for name, other in ((CALLER, winner), (winner, CALLER))
            },
        )

    def _calls_keys(self) -> set[Secret]:
        """The Ks of this call: what bob's devices and the KMS both held."""
        shared = set(self._held["kms"]) & {key for device in DEVICES for key in self._held[device]}
        return shared - self._town.remembered.long_term_keys()

    def _host(self, impi: str) -> str:
        return next(name for name, device in self._town.devices.items() if device.impi == impi)


def account(outcome: Forked) -> list[str]:
    """The outcome in sentences, as the demo ends with."""
    lines = [f"\ncall {outcome.call[:4]}: {outcome.answered_by} answered first", *table(outcome.access)]
    for device, held in outcome.kms_still_holds.items():
        lines.append(f"after SETTLED the KMS {'still holds' if held else 'has destroyed'} the K of {device}")
    for name, alike in outcome.heard.items():
        lines.append(f"{name} heard the other side {alike:.2f}")
    return lines


def _main_stream(packets: Sequence[bytes]) -> list[bytes]:
    """The packets of the SSRC that sent the most: a device that lost has sent a few, until it was told."""
    counts = Counter(packet[8:12] for packet in packets)
    [(ssrc, _)] = counts.most_common(1) or [(b"", 0)]
    return [packet for packet in packets if packet[8:12] == ssrc]
