"""`otway demo`: scenarios in this process, with no server and no configuration."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
import typer
from typer import Argument, Option

from chaos.tampering import Part
from console import logs
from console.hosting.running import Lab
from console.mistakes import Mistake
from console.outside import clock, random
from console.scenarios import call as demo_call
from console.scenarios import conference as demo_conference
from console.scenarios import fork as demo_fork
from console.scenarios import renew as demo_renew
from console.scenarios import transcode as demo_transcode
from console.scenarios import voicemail as demo_voicemail
from console.scenarios.evidence import keep, keep_sounds
from media.pcm import Pcm
from media.wav import read_sound
from protocol.description import SrtpSuite
from protocol.names import Suite
from protocol.profile import PROFILES, admit

Show = Callable[[str], None]


class Scenario(StrEnum):
    """What can be shown."""

    CALL = "call"
    FORK = "fork"
    VOICEMAIL = "voicemail"
    TRANSCODE = "transcode"
    CONFERENCE = "conference"
    RENEW = "renew"


class Seals(StrEnum):
    """The suites by the names of their ciphers."""

    AES_256_GCM = "aes-256-gcm"
    CHACHA20_POLY1305 = "chacha20-poly1305"


ProfileName = Literal["hardened", "literal"]


@dataclass(frozen=True, slots=True)
class _Shown:
    """What has come of a scenario."""

    outcome: Any
    account: list[str]
    heard: dict[str, Pcm] = field(default_factory=dict)


def demo(
    scenario: Annotated[Scenario | None, Argument(help="What to show; all in turn if none is named.")] = None,
    *,
    out: Annotated[
        Path | None,
        Option(help="Keep what was heard as WAV files, ladder.txt and the outcome as JSON here."),
    ] = None,
    wav: Annotated[
        Path | None, Option(help="A sound file for alice to say, up to 10 minutes; not of a conference.")
    ] = None,
    profile: Annotated[
        ProfileName, Option(help="Of a call. literal: the ten steps as first written.")
    ] = "hardened",
    lab: Lab = False,
    suite: Annotated[Seals, Option(help="Of a call: the AEAD of tokens and grants.")] = Seals.AES_256_GCM,
    srtp: Annotated[SrtpSuite | None, Option(help="Of a call: offer this SRTP suite only.")] = None,
    tamper: Annotated[
        Part | None, Option(help="Of a call: change one bit of this part on its way. Who notices?")
    ] = None,
    as_json: Annotated[bool, Option("--json", help="Print outcomes as JSON, one a line.")] = False,
) -> None:
    """Real agents, real SRTP on loopback; every party tries to decrypt with all that it holds.

    call: two phones. fork: bob has two devices, and both answer. voicemail: bob is away, alice leaves a
    message, everything is started anew, bob hears it on another device. transcode: alice and bob share no
    codec, and the transcoder between them dies. conference: members come, leave and are put out, and the
    focus dies. renew: a call outlives its key three times, until a key id is revoked.

    Each takes 6 to 15 s, all of them about a minute; with --wav the first three as long as that is.

    Exit code 0: all was heard by those who should, and by nobody else. 1: something was refused, or leaked.
    """
    of_a_call = (profile, suite, srtp, tamper) != ("hardened", Seals.AES_256_GCM, None, None)
    if of_a_call and scenario is not Scenario.CALL:
        raise Mistake("--profile, --suite, --srtp and --tamper are for one scenario: `otway demo call ...`")
    if wav is not None and scenario is Scenario.CONFERENCE:
        raise Mistake("--wav is not of a conference: each member says a tone of its own pitch")
    admitted = admit(PROFILES[profile], lab=lab)
    logs.configure("text", admitted, quiet=True)
    sound = read_sound(wav) if wav else None
    settings = demo_call.DemoSettings(
        profile=admitted,
        suite=Suite[suite.name],
        srtp_suites=(srtp,) if srtp else tuple(SrtpSuite),
        sound=sound,
        tampered=tamper,
    )
    play: Final[dict[Scenario, Callable[[Show], _Shown]]] = {
        Scenario.CALL: lambda show: _call(settings, show),
        Scenario.FORK: lambda show: _fork(sound, show),
        Scenario.VOICEMAIL: lambda show: _voicemail(sound, show),
        Scenario.TRANSCODE: lambda show: _transcode(sound, show),
        Scenario.CONFERENCE: _conference,
        Scenario.RENEW: lambda show: _renew(sound, show),
    }
    good = True
    for each in [scenario] if scenario else list(Scenario):
        kept = None if out is None else (out if scenario else out / each)
        good = _play(each, play[each], kept, as_json=as_json) and good
    raise typer.Exit(0 if good else 1)


def _play(scenario: Scenario, play: Callable[[Show], _Shown], out: Path | None, *, as_json: bool) -> bool:
    """One scenario, shown and kept. Returns whether it went as it should."""
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []

    def show(line: str) -> None:
        lines.append(line)
        if not as_json:
            typer.echo(line)

    show(f"--- {scenario} ---")
    shown = play(show)
    for line in shown.account:
        show(line)
    if out is not None:
        keep(out, scenario, shown.outcome, lines)
        keep_sounds(out, shown.heard)
        show(f"kept in {out}")
    if as_json:
        typer.echo(msgspec.json.encode(shown.outcome))
    else:
        typer.echo("")
    return bool(shown.outcome.good)


def _call(settings: demo_call.DemoSettings, show: Show) -> _Shown:
    call = demo_call.CallDemo(settings, clock=clock, random=random, show=show)
    outcome = asyncio.run(call.run())
    return _Shown(outcome, demo_call.account(outcome), call.heard)


def _fork(sound: Pcm | None, show: Show) -> _Shown:
    fork = demo_fork.ForkDemo(clock=clock, random=random, show=show, sound=sound)
    outcome = asyncio.run(fork.run())
    return _Shown(outcome, demo_fork.account(outcome), fork.heard)


def _voicemail(sound: Pcm | None, show: Show) -> _Shown:
    message = demo_voicemail.VoicemailDemo(clock=clock, random=random, show=show, sound=sound)
    outcome = asyncio.run(message.run())
    return _Shown(outcome, demo_voicemail.account(outcome), message.heard)


def _transcode(sound: Pcm | None, show: Show) -> _Shown:
    call = demo_transcode.TranscodeDemo(clock=clock, random=random, show=show, sound=sound)
    outcome = asyncio.run(call.run())
    return _Shown(outcome, demo_transcode.account(outcome), call.heard)


def _conference(show: Show) -> _Shown:
    conference = demo_conference.ConferenceDemo(clock=clock, random=random, show=show)
    outcome = asyncio.run(conference.run())
    return _Shown(outcome, demo_conference.account(outcome), conference.heard)


def _renew(sound: Pcm | None, show: Show) -> _Shown:
    call = demo_renew.RenewDemo(clock=clock, random=random, show=show, sound=sound)
    outcome = asyncio.run(call.run())
    return _Shown(outcome, demo_renew.account(outcome), call.heard)
