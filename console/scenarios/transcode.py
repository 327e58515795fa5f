"""`otway demo transcode`: alice and bob share no codec, so that a transcoder stands between them, with a key
for each of them that is not theirs. It dies while they speak, and another instance goes on.

dial -> no common codec -> two leg keys -> both speak -> the instance dies -> both speak -> who could decrypt
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable
from typing import Final

import msgspec
import numpy as np

from console.embedded import Hop, Town, TownSettings
from console.scenarios.evidence import NOTES, SOUNDS_ALIKE, WRONG, failed, lasting
from console.scenarios.streams import (
    Attempt,
    Keyring,
    Lock,
    Opened,
    Stream,
    caught,
    how_many,
    sorted_out,
    table_of,
    tried_on,
)
from console.scenarios.telling import Telling
from media.leg import Leg
from media.likeness import spectral_likeness
from media.pcm import PACKET_S, SAMPLE_HZ, Pcm
from media.rtcp import is_rtcp
from media.samples import callee_sample, caller_sample
from media.session import Session
from protocol.description import Flow, SrtpSuite
from protocol.exchange import transcript
from protocol.names import MASTER_KEY_OCTETS, Permit, Role, Run
from protocol.profile import HARDENED
from protocol.sealing import Random
from protocol.secret import Secret
from protocol.transcoding import leg_key
from protocol.transport import MediaAddress
from storage.kms_records import Agreement
from topics.messages import Audit, AuditEvent, ConferenceReport, Invite, Ok, Report, ReportEvent

CALLER: Final = "alice"
CALLEE: Final = "bob"
OUTSIDER: Final = "carol"
CODECS: Final[dict[str, tuple[str, ...]]] = {CALLER: ("PCMU",), CALLEE: ("G722",)}
INSTANCES: Final = ("transcoder", "transcoder-2")
_TALK_S: Final = 3.0  # before the instance dies, and after another has taken over
_LASTING_S: Final = 30.0
_TAKEN_OVER_WITHIN_S: Final = 10.0
_PARTIES: Final = (CALLER, CALLEE, "transcoder", "kms", "bsf", "cscf", OUTSIDER)
_INSIDERS: Final = frozenset({CALLER, CALLEE, "kms"})
_TRANSCODER: Final = "transcoder"
_LEGS: Final = {CALLER: "alice-T", CALLEE: "T-bob"}
_DIRECT: Final = "K's own"
_CONFIRM: Final = "confirm"
_NOTES: Final = {
    **NOTES,
    _TRANSCODER: "the same two leg keys for both instances; K is not among them, nor follows from them",
    "kms": "it made K",
    OUTSIDER: "a user who is in no call",
}


class Transcoded(msgspec.Struct, frozen=True, kw_only=True):
    """How it went: what `--json` prints and transcode.json holds."""

    call: str
    codecs: dict[str, str]  # by host
    transcoder: str
    told: list[str]  # hosts whose user was told who listens in
    releases: int  # audit records of leg keys: one for each instance
    gap_s: dict[str, float]  # by listener: without a packet from the transcoder, when the instance had died
    likeness_before: dict[str, float]  # by listener, of what it heard to what was said, 0 to 1: by spectrum
    likeness_after: dict[str, float]
    unknown: int  # streams that neither leg's key opens
    access: list[Attempt]

    @property
    def good(self) -> bool:
        """Both heard each other through both instances, and the transcoder could open the legs, and no
        more."""
        return not self.faults

    @property
    def faults(self) -> list[str]:
        """What is not as it should be."""
        alike = (*self.likeness_before.values(), *self.likeness_after.values())
        return failed(
            {
                "not both were told who listens in": self.told == [CALLER, CALLEE],
                "the audit does not have each release": self.releases == len(INSTANCES),
                "nobody took over in time": max(self.gap_s.values()) < _TAKEN_OVER_WITHIN_S,
                "somebody did not hear the other well": min(alike) > SOUNDS_ALIKE,
                "there are packets under neither leg key": self.unknown == 0,
                "not all have tried": [each.party for each in self.access] == [*_PARTIES, "wiretap"],
            }
        ) + [
            f"{WRONG}{each.party} could do more or less than it should"
            for each in self.access
            if each.opened != _expected(each.party, each.opened)
        ]


def _expected(party: str, columns: Iterable[str]) -> dict[str, Opened]:
    """What each may open, and must."""
    mine = {
        column: party in _INSIDERS or (party == _TRANSCODER and column not in {_DIRECT, _CONFIRM})
        for column in columns
    }
    return {column: Opened.ALL if may else Opened.NONE for column, may in mine.items()}


class TranscodeDemo:
    """One call through a transcoder."""

    def __init__(
        self,
        *,
        clock: Callable[[], int],
        random: Random,
        show: Callable[[str], None],
        sound: Pcm | None = None,
    ) -> None:
        """show: takes each line of the account as it happens. sound: what alice says."""
        self._random = random
        self._telling = Telling(show, (CALLER, "cscf", CALLEE, "kms", _TRANSCODER))
        said = {CALLER: caller_sample() if sound is None else sound, CALLEE: callee_sample()}
        self._said = {name: lasting(each, _LASTING_S) for name, each in said.items()}
        self._town = Town(
            TownSettings(
                sounds={**self._said, OUTSIDER: callee_sample()},
                functions=INSTANCES,
                codecs=CODECS,
                permits=dict.fromkeys(CODECS, (Permit.DEFERRED, Permit.TRANSCODE)),
            ),
            clock=clock,
            random=random,
            on_hop=self._happened,
        )
        self.keyring = Keyring(self._town, _PARTIES)
        self._died_at = 0.0
        self.heard: dict[str, Pcm] = {}
        """What each side heard, once the call is over."""

    async def run(self) -> Transcoded:
        """What `play` raises."""
        await self.play()
        return self.outcome()

    async def play(self) -> None:
        """Raises OSError without UDP sockets on loopback, TimeoutError when the call comes to nothing."""
        town = self._town
        try:
            await town.start()
            await town.registered()
            self._telling.begin(f"alice speaks {CODECS[CALLER][0]} only, bob {CODECS[CALLEE][0]} only\n")
            town.wishes.dial(CALLER, CALLEE)
            await town.until(lambda: self._transcoded() == 2)
            await asyncio.sleep(_TALK_S)
            await self._take_over()
            await asyncio.sleep(_TALK_S)
            town.hang_up(CALLER)
            await town.until(lambda: len(town.told(ReportEvent.MEDIA)) == 2)
            self.heard = {name: np.concatenate(town.heard(name)) for name in CODECS}
        finally:
            await town.stop()

    async def _take_over(self) -> None:
        town = self._town
        [carrying] = [name for name in INSTANCES if town.roots(name)]
        self._telling.note("the instance of the transcoder dies")
        self._died_at = asyncio.get_running_loop().time()
        await town.switch_off(carrying)
        await town.until(lambda: self._transcoded() == 4)

    def _transcoded(self) -> int:
        return len(self._town.told(ReportEvent.TRANSCODED))

    def _happened(self, hop: Hop) -> None:
        if isinstance(hop.message, Report | Audit | ConferenceReport):
            self.keyring.look()
        match hop.message:
            case Report(event=ReportEvent.UP):
                self._telling.note("alice has verified all: both hold K, and have no codec for it")
            case Report(event=ReportEvent.TRANSCODED, transcoder=transcoder):
                self._telling.note(f"{hop.sender} is told: {transcoder} listens in")
            case Audit(event=AuditEvent.RELEASED):
                self._telling.note("the KMS writes down whom it gives leg keys to")
            case _:
                self._telling.draw(hop)

    def outcome(self) -> Transcoded:
        """How it went, by all that was caught, heard and held."""
        town = self._town
        invite = next(m for m in town.passed[CALLEE] if isinstance(m, Invite))
        ok = next(m for m in town.passed[CALLER] if isinstance(m, Ok))
        call = _Call(invite, ok, town.transcoder.identity, self._key(invite, ok))
        streams = caught(town.wiretap)
        before = [stream for stream in streams if not stream.since(self._died_at)]
        after = [stream for stream in streams if stream.since(self._died_at)]
        columns = sorted_out(before, call.locks(""))
        later = sorted_out(after, call.locks(" after"))
        direct = call.direct(self._said[CALLER], self._random)
        columns.locked.update({**later.locked, _DIRECT: [direct]})
        held = {party: call.with_what_follows(keys) for party, keys in self.keyring.held.items()}
        proofs = {party: how_many([call.confirms(roots)]) for party, roots in held.items()}
        access = [
            msgspec.structs.replace(
                each, opened={**each.opened, _CONFIRM: proofs.get(each.party, Opened.NONE)}
            )
            for each in tried_on(columns, {**held, "wiretap": []}, _NOTES)
        ]
        told = town.told(ReportEvent.TRANSCODED)
        return Transcoded(
            call=invite.call.hex(),
            codecs={name: codecs[0] for name, codecs in CODECS.items()},
            transcoder=town.transcoder.identity,
            told=sorted(set(told)),
            releases=sum(audit.event is AuditEvent.RELEASED for audit in town.audits),
            gap_s={name: round(_gap(name, before, after), 2) for name in CODECS},
            likeness_before={name: self._alike(name, before, after, later=False) for name in CODECS},
            likeness_after={name: self._alike(name, before, after, later=True) for name in CODECS},
            unknown=len(columns.unknown) + len(later.unknown),
            access=access,
        )

    def _key(self, invite: Invite, ok: Ok) -> Secret:
        """K, as the KMS has it."""
        agreed = self._town.remembered.of_kms("agreement", Agreement)
        forks = (fork for each in agreed for run in each.runs if run.n == invite.run for fork in run.forks)
        [key] = [fork.key for fork in forks if fork.name == ok.fork and fork.key is not None]
        return key

    def _alike(self, name: str, before: list[Stream], after: list[Stream], *, later: bool) -> float:
        """How like what it heard of one instance is to what the other side said."""
        began = min(stream.at[0] for stream in before if stream.towards == name)
        again = min((stream.at[0] for stream in after if stream.towards == name), default=self._died_at)
        heard, other = self.heard[name], self._said[CALLEE if name == CALLER else CALLER]
        until, since = (int((moment - began) * SAMPLE_HZ) for moment in (self._died_at, again))
        part = heard[since:] if later else heard[:until]
        return round(spectral_likeness(part, other), 3)


class _Call:
    """What is known of the call by who made this demo: by it others' attempts are prepared and judged."""

    def __init__(self, invite: Invite, ok: Ok, transcoder: str, key: Secret) -> None:
        """key: K."""
        self._invite = invite
        self._ok = ok
        self._transcoder = transcoder
        self._key = key
        self._run = Run(
            call=invite.call, n=invite.run, caller=invite.caller, callee=invite.callee, suite=invite.suite
        )

    def locks(self, suffix: str) -> list[Lock]:
        """Both directions of both legs. suffix: of the columns' names."""
        locks = []
        for name, identity in ((CALLER, self._run.caller), (CALLEE, self._run.callee)):
            root = self._leg_key(self._key, identity)
            for sender, receiver in ((identity, self._transcoder), (self._transcoder, identity)):
                locks.append(Lock(_LEGS[name] + suffix, root, sender, receiver, self._run.n))
        return locks

    def with_what_follows(self, secrets: Iterable[Secret]) -> list[Secret]:
        """The secrets, and what would be the leg keys if one of them were K."""
        roots = [secret for secret in secrets if len(secret) == MASTER_KEY_OCTETS]
        ends = (self._run.caller, self._run.callee)
        return [*roots, *(self._leg_key(root, identity) for root in roots for identity in ends)]

    def direct(self, said: Pcm, random: Random) -> tuple[Stream, Lock]:
        """Media under K itself, from alice to bob: what they would send each other if they shared a codec."""
        run = self._run
        leg = Leg(
            session="direct",
            line=0,
            root=self._key,
            suite=SrtpSuite.AEAD_AES_256_GCM,
            codec=CODECS[CALLER][0],
            local=run.caller,
            remote=run.callee,
            remote_address=MediaAddress("127.0.0.1", 9),
            media_line=0,
            n=run.n,
            flow=Flow.SENDRECV,
            lifetime_s=60,
        )
        session = Session(leg, random, said, now=0.0, heard_samples_max=0)
        sent = [datagram for tick in range(5) for datagram in session.tick(tick * PACKET_S)]
        packets = tuple(datagram for datagram in sent if not is_rtcp(datagram))
        lock = Lock(_DIRECT, self._key, run.caller, run.callee, run.n)
        return Stream(CALLEE, packets, (0.0,) * len(packets)), lock

    def confirms(self, roots: Iterable[Secret]) -> bool:
        """Whether one of these makes bob's confirmation: alice would take who has it for bob."""
        invite, ok = self._invite, self._ok
        subject = transcript(
            self._run,
            offer=invite.offer,
            answer=ok.answer,
            fork=ok.fork,
            token_a=invite.token_a,
            nonce_b=ok.nonce_b,
            grant_a=ok.grant_a,
        )
        return any(HARDENED.confirm(root, Role.CALLEE, subject) == ok.confirm_b for root in roots)

    def _leg_key(self, key: Secret, identity: str) -> Secret:
        return leg_key(key, self._run, self._ok.fork, self._transcoder, identity)


def _gap(name: str, before: list[Stream], after: list[Stream]) -> float:
    """Seconds without a packet to one side, from the one instance's last to the other's first."""
    last = max(stream.at[-1] for stream in before if stream.towards == name)
    first = min((stream.at[0] for stream in after if stream.towards == name), default=math.inf)
    return first - last


def account(outcome: Transcoded) -> list[str]:
    """The outcome in sentences, as the demo ends with."""
    codecs = ", ".join(f"{name} {codec}" for name, codec in outcome.codecs.items())
    released = f"{outcome.releases} releases are in the audit"
    return [
        f"\ncall {outcome.call[:4]}: {codecs}, transcoded by {outcome.transcoder}",
        *table_of(outcome.access),
        f"{_DIRECT}: packets sent under K, as without a transcoder; {_CONFIRM}: bob's own, made anew",
        *(_heard(outcome, *pair) for pair in ((CALLEE, CALLER), (CALLER, CALLEE))),
        f"{released}; {outcome.unknown} streams are under neither leg key",
        *outcome.faults,
    ]


def _heard(outcome: Transcoded, listener: str, speaker: str) -> str:
    before, after = outcome.likeness_before[listener], outcome.likeness_after[listener]
    return (
        f"{listener} heard {speaker} {before:.2f} by one instance, {after:.2f} by the next (spectra); "
        f"{outcome.gap_s[listener]:.1f} s of silence between"
    )
