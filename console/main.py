"""The command `otway`: what a user types, and nothing of how it is done."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Literal, NoReturn

import msgspec
import typer
from typer import Argument, Option

from chaos.tampering import Part
from console.demo import CallDemo, DemoSettings, account, keep
from media.wav import SoundUnreadable, read_sound
from protocol.description import SrtpSuite
from protocol.names import Suite
from protocol.profile import PROFILES, LabOnly, admit

MISTAKES: Final = (SoundUnreadable, LabOnly, OSError)
"""What a user can put right: told in a line, without a traceback."""

random = os.urandom  # the one source of chance; all else is given it
app = typer.Typer(
    name="otway",
    help="Keys for voice calls by an Otway-Rees exchange: agents on a message bus, real SRTP media.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Scenario(StrEnum):
    """What `otway demo` can show."""

    CALL = "call"


class Seals(StrEnum):
    """The suites by the names of their ciphers."""

    AES_256_GCM = "aes-256-gcm"
    CHACHA20_POLY1305 = "chacha20-poly1305"


ProfileName = Literal["hardened", "literal"]


def clock() -> int:
    """Whole seconds since 1970 UTC."""
    return int(time.time())


@app.callback()
def otway() -> None:
    """Each command has its own --help."""


@app.command()
def demo(
    scenario: Annotated[Scenario, Argument(help="What to show.")] = Scenario.CALL,
    *,
    out: Annotated[
        Path | None, Option(help="Keep alice-heard.wav, bob-heard.wav, ladder.txt and call.json here.")
    ] = None,
    wav: Annotated[Path | None, Option(help="A sound file for alice to say, up to 10 minutes.")] = None,
    profile: Annotated[ProfileName, Option(help="literal: the ten steps as first written.")] = "hardened",
    lab: Annotated[bool, Option("--lab", help="Admit the literal profile, which protects nothing.")] = False,
    suite: Annotated[Seals, Option(help="The AEAD of tokens and grants.")] = Seals.AES_256_GCM,
    srtp: Annotated[SrtpSuite | None, Option(help="Offer this SRTP suite only.")] = None,
    tamper: Annotated[
        Part | None, Option(help="Change one bit of this part on its way: who notices?")
    ] = None,
    as_json: Annotated[bool, Option("--json", help="Print the outcome as JSON and nothing else.")] = False,
) -> None:
    """A call with no server and no configuration: real agents, real SRTP on loopback.

    Exit code 0: the call was up, both heard each other, and nobody else could. 1: something was refused.
    """
    del scenario  # there is one
    settings = DemoSettings(
        profile=admit(PROFILES[profile], lab=lab),
        suite=Suite[suite.name],
        srtp_suites=(srtp,) if srtp else tuple(SrtpSuite),
        sound=read_sound(wav) if wav else None,
        tampered=tamper,
    )
    lines: list[str] = []

    def show(line: str) -> None:
        lines.append(line)
        if not as_json:
            typer.echo(line)

    call = CallDemo(settings, clock=clock, random=random, show=show)
    outcome = asyncio.run(call.run())
    for line in account(outcome):
        show(line)
    if out is not None:
        keep(out, outcome, lines, call.heard)
        show(f"kept in {out}")
    if as_json:
        typer.echo(msgspec.json.encode(outcome))
    raise typer.Exit(0 if outcome.good else 1)


def main() -> NoReturn:
    """The entry point: a user's mistake is one line on standard error and exit code 1."""
    try:
        app()
    except MISTAKES as mistake:
        typer.echo(f"otway: {mistake}", err=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
