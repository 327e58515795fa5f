"""`otway demo call`: a whole call in this process, shown as it happens and judged afterwards.

bootstrap -> dial -> up -> both samples played -> hang up -> who could decrypt, who heard what
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np

from chaos.eavesdropping import readable
from chaos.tampering import Part
from console.embedded import Hop, Town, TownSettings
from console.scenarios.evidence import HEARD_WELL, NOT_HEARD, NOTES, Access, Voice, table, tried
from console.scenarios.telling import Telling
from media.likeness import likeness
from media.pcm import SAMPLE_HZ, Pcm
from media.samples import callee_sample, caller_sample
from protocol.checks import Check
from protocol.description import SrtpSuite, read_description
from protocol.names import Suite
from protocol.profile import HARDENED, Profile
from protocol.sealing import Random
from protocol.secret import Secret
from protocol.transport import Statistics
from topics.messages import Audit, Invite, Ok, Report, ReportEvent

CALLER: Final = "alice"
CALLEE: Final = "bob"
_TAIL_S: Final = 0.3  # what is on its way when the sample has ended still arrives
_TAMPERED_S: Final = 1.0  # of changed media are enough
_NOTES: Final = {
    **NOTES,
    "kms": "it made K",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSettings:
    """What the user may choose."""

    profile: Profile = HARDENED
    suite: Suite = Suite.AES_256_GCM
    """The AEAD of the seals."""
    srtp_suites: tuple[SrtpSuite, ...] = tuple(SrtpSuite)
    """Offered for media, the first choice first."""
    sound: Pcm | None = None
    """What the caller says instead of the built-in sample."""
    tampered: Part | None = None
    """The part in which one bit is changed on its way."""


class RefusedBy(msgspec.Struct, frozen=True):
    """Which numbered check noticed, and at whom."""

    party: str
    check: str
    sentence: str
    code: str


class Heard(msgspec.Struct, frozen=True):
    """How well one side heard the other. likeness: of the recording to what was played, 0 to 1."""

    listener: str
    speaker: str
    likeness: float
    on_the_wire: float  # the same for the payloads as they went by: what a wiretap hears
    statistics: Statistics


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How the call went: what `--json` prints and call.json holds."""

    call: str
    run: int
    profile: str
    suite: str
    srtp_suite: str | None
    bootstrap_ms: float
    set_up_ms: float | None  # from the wish to dial until the caller's handset has verified everything
    confirmed: bool
    access: list[Access]
    heard: list[Heard]
    tampered: str | None
    refused: RefusedBy | None

    @property
    def good(self) -> bool:
        """Up, confirmed, heard by each other and by nobody else."""
        return (
            self.confirmed
            and self.tampered is None
            and len(self.heard) == 2
            and all(side.likeness > HEARD_WELL and side.on_the_wire < NOT_HEARD for side in self.heard)
            and all(
                all(access.voices.values())
                if access.party in {CALLER, CALLEE, "kms"}
                else not any(access.voices.values())
                for access in self.access
            )
        )


class CallDemo:
    """One call between alice and bob."""

    def __init__(
        self, settings: DemoSettings, *, clock: Callable[[], int], random: Random, show: Callable[[str], None]
    ) -> None:
        """show: takes each line of the account as it happens."""
        self._settings = settings
        self._bootstrapping = Telling(show, (CALLER, CALLEE, "bsf", "kms", "cscf"))
        self._telling = Telling(show, (CALLER, "cscf", CALLEE, "kms"))
        said = settings.sound if settings.sound is not None else caller_sample()
        self._sounds = {CALLER: said, CALLEE: callee_sample()}
        self._town = Town(
            TownSettings(
                sounds=self._sounds,
                profile=settings.profile,
                suite=settings.suite,
                srtp_suites=settings.srtp_suites,
                tampered=settings.tampered,
            ),
            clock=clock,
            random=random,
            on_hop=self._happened,
        )
        self._dialled: float | None = None
        self._up_after_ms: float | None = None
        self._refused: RefusedBy | None = None
        self.heard: dict[str, Pcm] = {}
        """What each side heard, once the call is over."""

    async def run(self) -> Outcome:
        """Raises OSError without UDP sockets on loopback, TimeoutError when the call comes to nothing."""
        town, began = self._town, time.perf_counter()
        try:
            self._bootstrapping.begin(
                f"alice and bob bootstrap by GBA ({self._settings.profile.name} profile)"
            )
            await town.start()
            await town.registered()
            bootstrap_ms = 1000 * (time.perf_counter() - began)
            self._bootstrapping.pause()
            self._telling.begin(f"both have a key that the KMS holds too, after {bootstrap_ms:.0f} ms\n")
            access = await self._talk()
            return self._outcome(bootstrap_ms, access)
        finally:
            await town.stop()

    async def _talk(self) -> list[Access]:
        """From dialling to the last report, or to the first refusal."""
        town = self._town
        self._dialled = time.perf_counter()
        town.wishes.dial(CALLER, CALLEE)
        await town.until(lambda: self._is_refused() or self._is_up())
        if self._is_refused():
            return []
        held = {party: town.holdings(party) for party in (CALLER, CALLEE, "kms", "bsf", "cscf")}
        longest_s = max(sound.size for sound in self._sounds.values()) / SAMPLE_HZ + _TAIL_S
        with_bad_media = self._settings.tampered is Part.SRTP
        await asyncio.sleep(_TAMPERED_S if with_bad_media else longest_s)
        if self._is_refused():  # a SETTLED that was changed
            return []
        town.hang_up(CALLER)
        await town.until(lambda: self._is_refused() or self._is_over())
        if self._is_refused():
            return []
        self.heard = {name: np.concatenate(town.heard(name)) for name in (CALLER, CALLEE)}
        return self._access(held)

    def _happened(self, hop: Hop) -> None:
        match hop.message:
            case Report(event=ReportEvent.UP):
                assert self._dialled is not None
                self._up_after_ms = 1000 * (time.perf_counter() - self._dialled)
                self._telling.note(f"alice is up after {self._up_after_ms:.0f} ms")
            case Report(event=ReportEvent.CONFIRMED):
                self._telling.note("bob knows that alice holds K")
            case Report(event=ReportEvent.MEDIA, statistics=Statistics(refused=refused)) if refused:
                self._refuse(hop.sender, Check.OR_28, f"{refused} packets")
            case Report(check=Check() as check, reason=reason):
                self._refuse(hop.sender, check, reason or "")
            case Audit(check=Check() as check, code=code):
                self._refuse(hop.sender, check, code or "")
            case _:
                self._bootstrapping.draw(hop)
                self._telling.draw(hop)

    def _refuse(self, party: str, check: Check, code: str) -> None:
        if self._refused is None:
            self._refused = RefusedBy(party, check, check.sentence, code)
            self._telling.note(f"{party} refuses: {check} {check.sentence}")

    def _is_refused(self) -> bool:
        return self._refused is not None

    def _is_up(self) -> bool:
        seen = {report.event for report in self._town.reports}
        return {ReportEvent.UP, ReportEvent.CONFIRMED} <= seen

    def _is_over(self) -> bool:
        over = (ReportEvent.MEDIA, ReportEvent.ENDED)
        return all(len(set(self._town.told(event))) == 2 for event in over)

    def _access(self, held: dict[str, list[Secret]]) -> list[Access]:
        """Every party tries, with all that it held while the call was up, on what the wiretap caught."""
        identities = {name: device.identity for name, device in self._town.devices.items()}
        voices = {
            f"{speaker}'s voice": Voice(
                self._town.wiretap.srtp(listener), identities[speaker], identities[listener]
            )
            for speaker, listener in ((CALLER, CALLEE), (CALLEE, CALLER))
        }
        return tried({**held, "wiretap": []}, voices, _NOTES)

    def _outcome(self, bootstrap_ms: float, access: list[Access]) -> Outcome:
        town = self._town
        invite = next((m for m in town.passed.get(CALLEE, []) if isinstance(m, Invite)), None)
        ok = next((m for m in town.passed.get(CALLER, []) if isinstance(m, Ok)), None)
        heard = []
        for listener, speaker in ((CALLEE, CALLER), (CALLER, CALLEE)):
            if listener in self.heard:
                said = self._sounds[speaker]
                heard.append(
                    Heard(
                        listener,
                        speaker,
                        round(likeness(self.heard[listener], said), 3),
                        round(readable(town.wiretap.srtp(listener), said), 3),
                        town.statistics(listener),
                    )
                )
        return Outcome(
            call=invite.call.hex() if invite else "",
            run=invite.run if invite else 0,
            profile=self._settings.profile.name,
            suite=self._settings.suite.name.replace("_", "-"),
            srtp_suite=read_description(ok.answer).srtp_suites[0] if ok and not self._refused else None,
            bootstrap_ms=round(bootstrap_ms, 1),
            set_up_ms=None if self._up_after_ms is None else round(self._up_after_ms, 1),
            confirmed=self._is_up(),
            access=access,
            heard=heard,
            tampered=self._settings.tampered,
            refused=self._refused,
        )


def account(outcome: Outcome) -> list[str]:
    """The outcome in sentences, as `otway demo` ends with."""
    lines = [
        f"\ncall {outcome.call[:4]}  run {outcome.run}  {outcome.profile}, {outcome.suite}"
        + (f", SRTP {outcome.srtp_suite}" if outcome.srtp_suite else "")
    ]
    if outcome.tampered is not None:
        lines.append(_tampered(outcome))
    lines += table(outcome.access)
    for side in outcome.heard:
        media = side.statistics
        lines.append(
            f"{side.listener} heard {side.speaker} {side.likeness:.2f}, a wiretap {side.on_the_wire:.2f}   "
            f"{media.received} packets, {media.lost} lost, {media.refused} refused, "
            f"jitter {media.jitter_ms:.1f} ms"
        )
    if outcome.set_up_ms is not None:
        lines.append(f"set-up took {outcome.set_up_ms:.1f} ms")
    return lines


def _tampered(outcome: Outcome) -> str:
    if outcome.refused is None:
        return f"one bit of {outcome.tampered} was changed, and nobody noticed"
    refused = outcome.refused
    return (
        f"one bit of {outcome.tampered} was changed: {refused.party} refused it by {refused.check}, "
        f"{refused.sentence} ({refused.code})"
    )
