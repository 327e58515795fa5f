"""The command `otway`: what it is made of, and how a mistake is told."""

from __future__ import annotations

import asyncio
import os
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated, Final, NoReturn

import msgspec
import typer
from typer import Option

from agents.runtime import GaveUp
from console import logs
from console.clusters.cluster import cluster_app
from console.hosting.running import run_app
from console.mistakes import Mistake
from console.operating.administration import keys_app, provision, topics_app
from console.operating.dead_letters import dlq_app
from console.operating.doctor import examine
from console.operating.load import load
from console.operating.releases import releases_app
from console.operating.status import status
from console.outside import random
from console.settings import SETTINGS_FILE, SettingsBroken, read_settings
from console.simulation import simulate
from protocol.profile import HARDENED, LabOnly
from storage.key_file import KeyFileBroken
from storage.records import RecordBroken
from storage.store import StoreRefused, StoreUnavailable
from storage.users_file import UsersBroken
from topics.bus import BusRefused, BusUnavailable

MISTAKES: list[type[Exception]] = [
    BusRefused,
    BusUnavailable,
    GaveUp,
    KeyFileBroken,
    LabOnly,
    Mistake,
    OSError,
    RecordBroken,
    SettingsBroken,
    StoreRefused,
    StoreUnavailable,
    UsersBroken,
]
"""Told in a line, without a traceback."""

Json = Annotated[bool, Option("--json", help="Print the outcome as JSON and nothing else.")]
_MEDIA: Final = {
    "demo": "Scenarios in this process.",
    "call": "A call between two UE hosts.",
    "mailbox": "Messages in a user's mailbox.",
    "conference": "Conferences.",
}

app = typer.Typer(
    name="otway",
    help="Keys for voice calls by an Otway-Rees exchange: agents on a message bus, real SRTP media.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(run_app, name="run")
app.add_typer(topics_app, name="topics")
app.add_typer(keys_app, name="keys")
app.add_typer(releases_app, name="releases")
app.add_typer(dlq_app, name="dlq")
app.add_typer(cluster_app, name="cluster")
app.command()(provision)
app.command()(load)
app.command()(status)


@app.callback()
def otway() -> None:
    """Each command has its own --help."""


@app.command()
def doctor(*, as_json: Json = False) -> None:
    """Looks at settings, broker, topics, key file, store and clock, and says what to do.

    Exit code 0: an agent could run here.
    """
    settings = read_settings(os.environ, SETTINGS_FILE)
    logs.configure(settings.log, HARDENED, quiet=True)
    if not as_json:
        for name, value in settings.rows():
            typer.echo(f"  {name:26}{value}")

    async def examined() -> bool:
        well = True
        async for finding in examine(settings, random):
            well = well and finding.advice is None
            if as_json:
                typer.echo(msgspec.json.encode(finding))
            else:
                typer.echo(f"{'ok  ' if finding.advice is None else 'BAD '}{finding.about:12}{finding.found}")
                if finding.advice is not None:
                    typer.echo(f"    {'':12}do: {finding.advice}")
        return well

    raise typer.Exit(0 if asyncio.run(examined()) else 1)


@app.command()
def sim(
    *,
    seeds: Annotated[int, Option(min=1, help="How many runs.")] = 1000,
    first: Annotated[int, Option(min=0, help="The first seed.")] = 0,
    seed: Annotated[int | None, Option(min=0, help="Just this one, with its story.")] = None,
    as_json: Json = False,
) -> None:
    """Whole deployments from seeds: false time and network, crashes, forgeries; then the invariants.

    Exit code 0: every run kept them. A seed that fails is printed with the command that replays it.
    """
    logs.configure("text", HARDENED, quiet=True)
    failed = simulate([seed] if seed is not None else range(first, first + seeds), story=seed is not None)
    if as_json:
        typer.echo(msgspec.json.encode(failed))
    raise typer.Exit(1 if failed else 0)


def _without_media() -> NoReturn:
    raise Mistake("this installation has no media libraries: `pip install 'otway[media]'` brings them")


if find_spec("av") is None:  # an image of a network role has no business with sound
    for name, what in _MEDIA.items():
        app.command(name, help=f"{what} (Not in this installation.)")(_without_media)
else:
    calls = import_module("console.calls.commands")
    calls.add_to(app, run_app)
    MISTAKES += calls.MISTAKES


def main() -> NoReturn:
    """The entry point: a mistake is one line on standard error and exit code 1."""
    try:
        app()
    except tuple(MISTAKES) as mistake:
        typer.echo(f"otway: {mistake}", err=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
