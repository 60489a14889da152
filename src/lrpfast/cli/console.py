"""How the command line speaks: data on stdout, words on stderr, errors with a cure and an exit code."""

from __future__ import annotations

import difflib
import json
import os
import shutil
import sys
import textwrap
import traceback
from collections.abc import Iterable, Sequence
from typing import Any

import click

from ..blowup import said
from ..errors import (
    BackendError,
    BlowUpError,
    CompositeError,
    InputError,
    LrpfastError,
    MissingPackageError,
    ModelError,
    NonFiniteError,
    OutputError,
)
from ..memory import MORE_MEMORY

BLOWUP_CURES = (
    "-p sums=abs shares sums and average pooling by magnitude, which cannot blow up; a larger -p epsilon=... tames "
    "dense layers; --on-blowup clip scales down what nodes hand back, and ignore is silent"
)

REFUSED, USAGE, BAD_INPUT, BAD_OUTPUT, INTERRUPTED = 1, 2, 3, 4, 130
SOME_FAILED, CROSSED = 5, 6


class Failure(click.ClickException):
    """An error to be shown to the user.

    Parameters
    ----------
    message : str
        What is wrong.
    exit_code : int
        One of the constants above.
    hint : str, default ""
        What to do about it.
    """

    def __init__(self, message: str, exit_code: int, hint: str = "") -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]
        self.hint = hint


def usage(message: str, hint: str = "") -> Failure:
    """The arguments make no sense."""
    return Failure(message, USAGE, hint)


def translate(error: BaseException) -> Failure:
    """An exception as what the user is told."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "lrpfast"
        return usage(error.format_message(), f"`{command} --help` shows how it is used")
    if isinstance(error, click.ClickException):
        return Failure(error.format_message(), error.exit_code)
    if isinstance(error, (click.Abort, KeyboardInterrupt)):
        return Failure("interrupted", INTERRUPTED)
    if isinstance(error, LrpfastError):
        return _translate_ours(error)
    if isinstance(error, MemoryError):
        return Failure(f"out of memory: {error}" if str(error) else "out of memory", REFUSED, MORE_MEMORY)
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return Failure(
            "the system grants no more threads", REFUSED, "raise ulimit -u and -v, or say --threads 1"
        )
    return Failure(
        f"{type(error).__name__}: {error}", REFUSED, "this is a bug in lrpfast; LRPFAST_DEBUG=1 shows where"
    )


def _translate_ours(error: LrpfastError) -> Failure:
    message = str(error)
    if isinstance(error, ModelError):
        cures = {
            "output=…": "say --output NAME",
            "input_shape={": "say --input-shape NAME:3x224x224, or whatever the network takes, for each",
            "input_shape": "say --input-shape 3,224,224, or whatever the network takes",
        }
        return Failure(message, REFUSED, next((cure for part, cure in cures.items() if part in message), ""))
    if isinstance(error, CompositeError):
        return Failure(message, REFUSED, "another composite may fit: `lrpfast composites` lists them")
    if isinstance(error, BackendError):
        return Failure(message, REFUSED, "`lrpfast doctor` shows what runs here and why")
    if isinstance(error, BlowUpError):
        return Failure(said(error.offenders), REFUSED, BLOWUP_CURES)
    if isinstance(error, NonFiniteError):
        return Failure(message, REFUSED, "--dtype float64 has more range")
    if isinstance(error, InputError):
        return Failure(message, USAGE if message.startswith("max_memory") else BAD_INPUT)
    output = isinstance(error, (OutputError, MissingPackageError))  # packages that inputs need: see inputs.py
    return Failure(message, BAD_OUTPUT if output else REFUSED)


def colors_wanted() -> bool | None:
    """False if the user wants none (https://no-color.org), else None: click looks at the terminal."""
    return False if os.environ.get("NO_COLOR") else None


def report(error: BaseException) -> int:
    """Print an error on stderr; returns the exit code."""
    if os.environ.get("LRPFAST_DEBUG"):
        traceback.print_exception(error)
    failure = translate(error)
    say("error", failure.format_message(), "red")
    if failure.hint:
        say("hint", failure.hint, "cyan")
    return failure.exit_code


def say(kind: str, message: str, color: str) -> None:
    """Words on stderr, such as ``note: …``; wrapped if that is a terminal."""
    text = f"{kind}: {message}"
    if sys.stderr.isatty():
        text = "\n".join(_wrapped(line, shutil.get_terminal_size().columns) for line in text.splitlines())
    head, rest = text[: len(kind) + 1], text[len(kind) + 1 :]
    click.echo(click.style(head, fg=color, bold=True) + rest, err=True, color=colors_wanted())


def _wrapped(line: str, width: int) -> str:
    indent = " " * (2 + len(line) - len(line.lstrip()))
    return textwrap.fill(
        line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def note(message: str) -> None:
    """Something the user should know."""
    say("note", message, "yellow")


def closest(word: str, known: Iterable[str]) -> str:
    """A hint that names what may have been meant, or everything there is."""
    known = list(known)
    near = difflib.get_close_matches(word, known, 3, 0.7)
    return f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known)}"


class OneOf(click.ParamType):  # type: ignore[type-arg]
    """One of some words; an unknown one is answered with those that resemble it."""

    def __init__(self, name: str, words: Iterable[str], metavar: str = "") -> None:
        self.name = name
        self.words = tuple(words)
        self.metavar = metavar or "|".join(self.words)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return self.metavar

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in self.words:
            raise usage(f"unknown {self.name} {value!r}", closest(value, self.words))
        return str(value)


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))


def print_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on stdout; cells are shortened only if a terminal is too narrow for them."""
    lines = [tuple(head), *(tuple(map(str, row)) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    if sys.stdout.isatty():
        widths = fitted(widths, shutil.get_terminal_size().columns)
    for i, line in enumerate(lines):
        cells = (shorten(cell, width).ljust(width) for cell, width in zip(line, widths, strict=True))
        text = "  ".join(cells).rstrip()
        click.echo(text if i else click.style(text, bold=True))


def fitted(widths: Sequence[int], total: int, least: int = 8) -> list[int]:
    """Widths of columns, two spaces apart, that fit into `total`: the widest give way."""
    fitting = list(widths)
    while sum(fitting) + 2 * (len(fitting) - 1) > total and max(fitting) > least:
        fitting[fitting.index(max(fitting))] -= 1
    return fitting


def shorten(text: str, width: int) -> str:
    """`text`, its middle left out if it is longer than `width`."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return text[: width - 1 - tail] + "…" + text[len(text) - tail :]


class Progress:
    """A line on stderr that counts; only on a terminal, and only if there is something to count."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        self.shown = total > 1 and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def clear(self) -> None:
        """Wipe the line, so that something else can be printed."""
        if self.shown:
            click.echo("\r\x1b[K", err=True, nl=False)

    def step(self, what: str) -> None:
        """The next one begins."""
        if self.shown:
            filled = 20 * self.done // self.total
            bar = "█" * filled + "░" * (20 - filled)
            text = f"{bar} {self.done + 1}/{self.total} {shorten(what, 40)}"
            click.echo(f"\r\x1b[K{text}", err=True, nl=False)
        self.done += 1
