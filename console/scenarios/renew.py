"""`otway demo renew`: a call whose keys live for seconds. It is renewed while both speak, and goes on for
longer than a key lives; then a key id is revoked, and it ends.

dial -> K -> K' -> K'' -> K''' -> bob's key id is revoked -> over -> which key opens what
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec
import numpy as np

from console.embedded import Hop, Town, TownSettings
from console.scenarios.evidence import NOTES, SOUNDS_ALIKE, failed, lasting
from console.scenarios.streams import (
    Attempt,
    Keyring,
    Lock,
    Opened,
    caught,
    sorted_out,
    table_of,
    tried_on,
)
from console.scenarios.telling import Telling
from console.scenarios.waiting import Waiting
from media.likeness import spectral_likeness
from media.pcm import SAMPLE_HZ, Pcm
from media.samples import callee_sample, caller_sample
from protocol.sealing import Random
from protocol.secret import Secret
from storage.kms_records import Agreement
from topics.messages import Audit, AuditEvent, Report, ReportEvent

CALLER: Final = "alice"
CALLEE: Final = "bob"
LIFE_S: Final = 6
RENEWALS: Final = 3
GAP_MS_MAX: Final = 60
ENDED_WITHIN_S: Final = 3.0
REVOKED: Final = "revoked"
_TALK_S: Final = 1.0  # after the last renewal
_LASTING_S: Final = 30.0
_FRAME: Final = SAMPLE_HZ // 200  # 5 ms
_QUIET: Final = 100  # of 32,767
_PARTIES: Final = (CALLER, CALLEE, "kms", "bsf", "cscf")
_INSIDERS: Final = frozenset({CALLER, CALLEE, "kms"})
_NOTES: Final = {**NOTES, "kms": "it made the keys"}


class Renewed(msgspec.Struct, frozen=True, kw_only=True):
    """How it went: what `--json` prints and renew.json holds."""

    call: str
    life_s: int
    talked_s: float
    runs: list[int]  # n of each key that both ends have used
    longest_silence_ms: dict[str, int]  # by listener
    waited_ms: int  # how long the machine has kept this process waiting meanwhile
    silence_said_ms: dict[str, int]  # by listener: what the other's sound had of it
    likeness: dict[str, float]  # by listener, of what it heard to what was said, 0 to 1: by spectrum
    revoked_key_id: str
    ended_after_s: dict[str, float]  # by host, from the order to revoke
    silent_after_s: float  # from the order until the last packet of anybody
    reasons: dict[str, str]  # by host
    unknown: int  # streams that none of the keys opens
    access: list[Attempt]  # of parties
    keys: list[Attempt]  # of each key by itself

    @property
    def good(self) -> bool:
        """Renewed unheard, each key for its own packets only, and over when it was revoked."""
        return not self.faults

    @property
    def faults(self) -> list[str]:
        """What is not as it should be."""
        columns = [_column(n) for n in self.runs]
        ends = (CALLER, CALLEE)
        # who speaks and who listens: each may be as late as the thread that has measured it
        gap_ms = max(self.longest_silence_ms[name] - self.silence_said_ms[name] for name in ends)
        access = {
            each.party: dict.fromkeys(columns, Opened.ALL if each.party in _INSIDERS else Opened.NONE)
            for each in self.access
        }
        keys = {
            each.party: {name: Opened.ALL if name == each.party else Opened.NONE for name in columns}
            for each in self.keys
        }
        return failed(
            {
                f"it was not renewed {RENEWALS} times": len(self.runs) == RENEWALS + 1,
                "it did not outlive a key": self.talked_s > self.life_s,
                f"a gap of more than {GAP_MS_MAX} ms was heard": gap_ms - 2 * self.waited_ms <= GAP_MS_MAX,
                "somebody did not hear the other well": min(map(self.likeness.__getitem__, ends))
                > SOUNDS_ALIKE,
                "nobody was told that it was revoked": REVOKED in self.reasons.values(),
                "it went on for too long after that": max(self.silent_after_s, *self.ended_after_s.values())
                < ENDED_WITHIN_S,
                "there are packets under no key": self.unknown == 0,
                "not all have tried": [each.party for each in self.access] == [*_PARTIES, "wiretap"]
                and [each.party for each in self.keys] == columns,
                "somebody could decrypt more or less than it should": all(
                    each.opened == access[each.party] for each in self.access
                ),
                "a key opens more than its own packets": all(
                    each.opened == keys[each.party] for each in self.keys
                ),
            }
        )


class RenewDemo:
    """One call that is renewed, and revoked."""

    def __init__(
        self,
        *,
        clock: Callable[[], int],
        random: Random,
        show: Callable[[str], None],
        sound: Pcm | None = None,
    ) -> None:
        """show: takes each line of the account as it happens. sound: what alice says."""
        self._telling = Telling(show, (CALLER, "cscf", CALLEE, "kms"))
        said = {CALLER: caller_sample() if sound is None else sound, CALLEE: callee_sample()}
        self._said = {name: lasting(each, _LASTING_S) for name, each in said.items()}
        settings = TownSettings(sounds=self._said, functions=(), life_s=LIFE_S)
        self._town = Town(settings, clock=clock, random=random, on_hop=self._happened)
        self.keyring = Keyring(self._town, _PARTIES)
        self._keys: dict[int, Secret] = {}  # K of each run, as the KMS has it
        self._waiting = Waiting()
        self._up_at = 0.0
        self._revoked_at = 0.0
        self._ended_at: dict[str, float] = {}
        self.heard: dict[str, Pcm] = {}
        """What each side heard, once the call is over."""

    async def run(self) -> Renewed:
        """What `play` raises."""
        await self.play()
        return self.outcome()

    async def play(self) -> None:
        """Raises OSError without UDP sockets on loopback, TimeoutError when the call comes to nothing."""
        town = self._town
        try:
            await town.start()
            await town.registered()
            self._telling.begin(f"each key lives for {LIFE_S} s\n")
            with self._waiting:
                await self._talk()
            await self._revoke()
            self.heard = {name: np.concatenate(town.heard(name)) for name in (CALLER, CALLEE)}
        finally:
            await town.stop()

    async def _talk(self) -> None:
        town = self._town
        town.wishes.dial(CALLER, CALLEE)
        await town.until(lambda: town.told(ReportEvent.CONFIRMED) != [])
        self._up_at = asyncio.get_running_loop().time()
        await town.until(lambda: len(town.told(ReportEvent.RENEWED)) == 2 * RENEWALS)
        await asyncio.sleep(_TALK_S)

    async def _revoke(self) -> None:
        town = self._town
        self._telling.note("an operator revokes bob's key id")
        self._revoked_at = asyncio.get_running_loop().time()
        town.wishes.revoke(self._key_id())
        over = (ReportEvent.ENDED, ReportEvent.MEDIA)
        await town.until(lambda: all(len(set(town.told(event))) == 2 for event in over))

    def _key_id(self) -> str:
        """Bob's, as the KMS's audit names it."""
        granted = [audit for audit in self._town.audits if audit.event is AuditEvent.GRANTED]
        return granted[-1].callee_key or ""

    def _happened(self, hop: Hop) -> None:
        if isinstance(hop.message, Report | Audit):
            self.keyring.look()
            for agreement in self._town.remembered.of_kms("agreement", Agreement):
                for agreed in agreement.runs:
                    self._keys.update((agreed.n, fork.key) for fork in agreed.forks if fork.key is not None)
        match hop.message:
            case Report(event=ReportEvent.UP):
                self._telling.note("alice has verified grant and confirmation")
            case Report(event=ReportEvent.RENEWED, run=run):
                self._telling.note(f"{hop.sender} goes on under the key of run {run}")
            case Report(event=ReportEvent.ENDED, reason=reason):
                self._ended_at[hop.sender] = asyncio.get_running_loop().time()
                self._telling.note(f"over at {hop.sender}: {reason}")
            case Audit(event=AuditEvent.WITHDRAWN):
                self._telling.note("the KMS has destroyed K, and tells both")
            case _:
                self._telling.draw(hop)

    def outcome(self) -> Renewed:
        """How it went, by all that was caught, heard and held."""
        town = self._town
        alice, bob = (town.devices[name].identity for name in (CALLER, CALLEE))
        locks = [
            Lock(_column(n), key, sender, receiver, n)
            for n, key in sorted(self._keys.items())
            for sender, receiver in ((alice, bob), (bob, alice))
        ]
        streams = caught(town.wiretap)
        columns = sorted_out(streams, locks)
        keys = {n: key for n, key in sorted(self._keys.items()) if columns.locked[_column(n)]}
        columns.locked = {_column(n): columns.locked[_column(n)] for n in keys}
        told = [report for report in town.reports if report.event is ReportEvent.ENDED]
        hosts = {device.impi: name for name, device in town.devices.items()}
        pairs = ((CALLER, CALLEE), (CALLEE, CALLER))
        return Renewed(
            call=next(report.call.hex() for report in told if report.call),
            life_s=LIFE_S,
            talked_s=round(self._revoked_at - self._up_at, 1),
            runs=list(keys),
            longest_silence_ms={name: longest_silence_ms(self.heard[name]) for name in self.heard},
            waited_ms=self._waiting.longest_ms,
            silence_said_ms={name: longest_silence_ms(self._said[other]) for name, other in pairs},
            likeness={
                name: round(spectral_likeness(self.heard[name], self._said[other]), 3)
                for name, other in pairs
            },
            revoked_key_id=self._key_id(),
            ended_after_s={name: round(at - self._revoked_at, 2) for name, at in self._ended_at.items()},
            silent_after_s=round(max(0.0, max(stream.at[-1] for stream in streams) - self._revoked_at), 2),
            reasons={hosts[report.device]: report.reason or "" for report in told},
            unknown=len(columns.unknown),
            access=tried_on(columns, {**self.keyring.held, "wiretap": ()}, _NOTES),
            keys=tried_on(columns, {_column(n): [key] for n, key in keys.items()}, {}),
        )


def _column(n: int) -> str:
    return f"K of run {n}"


def longest_silence_ms(sound: Pcm) -> int:
    """Between the first that can be heard and the last."""
    frames = np.abs(sound[: sound.size // _FRAME * _FRAME].astype(np.int32)).reshape(-1, _FRAME)
    [at] = np.nonzero(frames.max(axis=1) > _QUIET)
    return int((np.diff(at) - 1).max(initial=0)) * 1000 * _FRAME // SAMPLE_HZ


def account(outcome: Renewed) -> list[str]:
    """The outcome in sentences, as the demo ends with."""
    keys = f"{len(outcome.runs)} keys that live for {outcome.life_s} s"
    lines = [
        f"\ncall {outcome.call[:4]}: {outcome.talked_s:.1f} s, with {keys}",
        *table_of(outcome.access),
        *table_of(outcome.keys, "what each key opens", "(each tried by itself)"),
    ]
    for listener, speaker in ((CALLEE, CALLER), (CALLER, CALLEE)):
        lines.append(
            f"{listener} heard {speaker} {outcome.likeness[listener]:.2f} (spectra); longest silence "
            f"{outcome.longest_silence_ms[listener]} ms, {outcome.silence_said_ms[listener]} ms of it said"
        )
    for name, after in outcome.ended_after_s.items():
        lines.append(
            f"over at {name} {1000 * after:.0f} ms after bob's key id was revoked: {outcome.reasons[name]}"
        )
    lines.append(f"the last packet came {1000 * outcome.silent_after_s:.0f} ms after it")
    return [*lines, f"the machine kept us waiting {outcome.waited_ms} ms", *outcome.faults]
