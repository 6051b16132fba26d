"""`hopgate discover`: the agents of this machine that nobody told of."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

import click

from hopgate.cli import discover_gates as gates
from hopgate.cli import discover_view as view
from hopgate.cli import output
from hopgate.cli.data import default_data_folder
from sensor import clock, programs
from sensor import data as known
from sensor.classify import SightingClass
from sensor.kernel import Kernel, KernelError
from sensor.providers import ProvidersError
from sensor.sightings import Sighting
from sensor.watch import Watch

DEFAULT_SECONDS: Final = 10.0
# What weighs less is mostly a browser, or a program that loaded a library.
SHOWN_WEIGHT: Final = 30
# A person sees no difference, and a short program's /proc is read soon enough.
_TURN_SECONDS: Final = 0.05
_DRAW_SECONDS: Final = 0.25
_GATES_SECONDS: Final = 5.0
NOT_WATCHED: Final = 3


@click.command("discover", epilog="Example: hopgate discover --watch    (as root; elsewhere, an agent calls a model)")
@click.option("--watch", is_flag=True, help="Go on until interrupted, and tell of each program as soon as it is seen.")
@click.option(
    "--duration",
    type=click.FloatRange(min=0, max=31_536_000),
    metavar="SECONDS",
    help=f"Watch for so long.  [default: {DEFAULT_SECONDS:.0f}; with --watch: until interrupted]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line; with --watch one whenever there is something new.")
@click.option("--providers", type=click.Path(path_type=Path), metavar="FILE", help="Model APIs, packages and variables of your own (YAML).")
@click.option("--all", "everything", is_flag=True, help="Also show what hardly speaks for an agent.")
@click.option("--data", type=click.Path(path_type=Path), default=default_data_folder, show_default=True, help="The gate's data folder.")
def command(*, watch: bool, duration: float | None, as_json: bool, providers: Path | None, everything: bool, data: Path) -> None:
    """Find the agents of this machine: who calls models and tools, and why it is thought an agent. Needs root to see calls.

    Looks at what runs, then watches handshakes, DNS answers and requests in clear as the kernel sees them. No value of a variable or of
    an option is read into anything that is shown. Works without a gate; where one runs, its agents are told as registered.

    Exit code 0: no agent but registered ones; 1: at least one; 2: wrong usage; 3: calls could not be watched, and the list is of running
    programs only.
    """
    try:
        found = known.built_in() if providers is None else known.with_file(providers)
    except ProvidersError as error:
        for mistake in str(error).splitlines():
            output.line(mistake)
        click.echo(f"hopgate: the file of providers can't be taken ({error.code})\n  to mend it: {error.remedy}", err=True)
        sys.exit(2)
    seconds = duration if duration is not None else (float("inf") if watch else DEFAULT_SECONDS)
    click.echo("looking at what runs" + ("" if as_json else ", then at what is called"), err=True)
    kernel, refused = _load()
    with Watch(found, kernel) as watched, _interruption() as interrupted:
        _announce(kernel, refused, seconds)
        watched.discovery.govern(gates.governance(data, watched.parents))
        watched.begin()
        shown = _Shown(watched, 0 if everything else SHOWN_WEIGHT)
        turns = _turns(watched, interrupted, seconds if kernel is not None else 0.0, data)
        if as_json:
            _json(shown, turns, watch=watch)
        elif sys.stdout.isatty():
            _terminal(shown, turns)
        else:
            _text(shown, turns, watch=watch)
        unregistered = _summarise(watched, shown)
    if kernel is None:
        sys.exit(NOT_WATCHED)
    sys.exit(1 if unregistered else 0)


class _Shown:
    """What is worth a line."""

    def __init__(self, watched: Watch, weight: int) -> None:
        self._discovery = watched.discovery
        self._weight = weight

    def all(self) -> list[Sighting]:
        """All of them, the likeliest first."""
        return [sighting for sighting in self._discovery.sightings() if sighting.weight >= self._weight]

    def changed(self) -> list[Sighting]:
        """Those of which there is something new to say."""
        return [sighting for sighting in self._discovery.changed(clock.now_ns()) if sighting.weight >= self._weight]


def _load() -> tuple[Kernel | None, KernelError | None]:
    """The programs in the kernel, or why there are none."""
    if os.geteuid() != 0:
        return None, KernelError(f"expected root, got user {os.geteuid()}", remedy="run it as `sudo hopgate discover`")
    try:
        return programs.open(), None
    except KernelError as error:
        return None, error


def _announce(kernel: Kernel | None, refused: KernelError | None, seconds: float) -> None:
    if kernel is not None:
        until = "until interrupted" if seconds == float("inf") else f"for {seconds:g} s"
        click.echo(f"watching {until}; the kernel's programs were loaded by {kernel.loader}: {kernel.why}", err=True)
        for hook in kernel.hooks:
            if not hook.attached:
                click.echo(f"not seen: {hook.name}: {hook.reason or 'not attached'}", err=True)
    elif refused is not None:
        click.echo(f"calls are not watched: {refused} ({refused.code})", err=True)
        if refused.remedy:
            click.echo(f"  to mend it: {refused.remedy}", err=True)
        click.echo("  what still works: programs that run now, by their files and the names of their variables", err=True)


def _turns(watched: Watch, interrupted: Callable[[], bool], seconds: float, data: Path) -> Iterator[None]:
    """Take in what the kernel tells, turn by turn, until the time is over or somebody interrupts."""
    end = time.monotonic() + seconds
    asked = time.monotonic()
    while not interrupted():
        now = time.monotonic()
        if now - asked >= _GATES_SECONDS:
            watched.discovery.govern(gates.governance(data, watched.parents))
            asked = now
        if now >= end:
            return
        watched.turn(min(_TURN_SECONDS, end - now))
        yield


@contextmanager
def _interruption() -> Iterator[Callable[[], bool]]:
    """Whether somebody asked for the end. It ends in good order, with the table, not in the middle of a line."""
    asked: list[int] = []

    def ask(number: int, _: FrameType | None) -> None:
        asked.append(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _json(shown: _Shown, turns: Iterator[None], *, watch: bool) -> None:
    if watch:
        output.json_lines(map(view.as_json, shown.changed()))
    for _ in turns:
        if watch:
            output.json_lines(map(view.as_json, shown.changed()))
    if not watch:
        output.json_lines(map(view.as_json, shown.all()))


def _text(shown: _Shown, turns: Iterator[None], *, watch: bool) -> None:
    for _ in turns:
        if watch:
            for sighting in shown.changed():
                output.line(view.line(sighting))
    found = shown.all()
    if found and not watch:
        output.table(*view.headings_and_rows(found))
    elif watch:
        for sighting in shown.changed():
            output.line(view.line(sighting))


def _terminal(shown: _Shown, turns: Iterator[None]) -> None:
    """A table that is drawn anew as things are seen, and stays at the end."""
    from rich.console import Console, Group  # noqa: PLC0415 - for a terminal only
    from rich.live import Live  # noqa: PLC0415
    from rich.spinner import Spinner  # noqa: PLC0415

    console = Console()
    spinner = Spinner("dots", text="watching; Ctrl-C ends it")
    with Live(console=console, transient=True, auto_refresh=False) as live:
        drawn = float("-inf")
        for _ in turns:
            now = time.monotonic()
            if now - drawn >= _DRAW_SECONDS:
                live.update(Group(view.table(shown.all(), console.width), spinner), refresh=True)
                drawn = now
    found = shown.all()
    if found:
        console.print(view.table(found, console.width))


def _summarise(watched: Watch, shown: _Shown) -> int:
    """Say on standard error what was found and what was not seen; how many are agents that nobody registered."""
    unregistered = sum(sighting.kind in {SightingClass.SHADOW, SightingClass.UNATTRIBUTABLE} for sighting in shown.all())
    counters = watched.discovery.counters
    missed = {
        "programs that may not be read": watched.unreadable,
        "events that the kernel had no room for": watched.lost(),
        "programs of calls, gone before they could be read": counters.unread,
        "programs that there was no room for": counters.evicted,
    }
    click.echo(
        f"running programs looked at: {watched.examined}; calls seen: {counters.calls}; agents that nobody registered: {unregistered}",
        err=True,
    )
    for what, count in missed.items():
        if count:
            click.echo(f"not seen: {what}: {count}", err=True)
    if watched.unlisted:
        click.echo(f"not seen: connections that were open before: {watched.unlisted}", err=True)
    return unregistered
