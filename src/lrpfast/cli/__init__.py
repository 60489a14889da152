"""The command line: ``lrpfast``, or ``python -m lrpfast``. One file per group of commands."""

from __future__ import annotations

import atexit
import contextlib
import gc
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from .._version import __version__
from .console import colors_wanted, report

HELP = """Why did the network say that? Layer-wise relevance propagation from an ONNX file to a heatmap.

    \b
    Start here:
      lrpfast demo
          a first look, with the small network that ships with lrpfast
      lrpfast check model.onnx
          can this network be explained, and by which rules?
      lrpfast explain model.onnx photo.jpg -o heat.png
          a heatmap: red speaks for the class, blue against it

    Data go to stdout, words to stderr. NO_COLOR=1 does without colours, LRPFAST_DEBUG=1 shows where an
    error comes from.

    \b
    Exit codes:
      0    all went well
      1    the model is unreadable or refused, the composite does not fit it,
           or the explanation failed
      2    the arguments make no sense
      3    an input, label or preprocessing file is unreadable or unsuitable
      4    an output cannot be written
      5    of a batch, some inputs failed
      6    of a batch, a threshold of --fail-on was crossed
      130  interrupted
    """


COMMANDS = {
    "explain": "explain", "batch": "batch", "check": "model", "inspect": "model", "composites": "lists",
    "rules": "lists", "bench": "bench", "doctor": "doctor", "demo": "demo",
}  # fmt: skip
"""The commands, in the order in which one needs them, and the files that they are in."""


class Lrpfast(click.Group):
    """A group that imports a command when it is asked for, and reports every error as words and an exit code."""

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> Any:
        gc.set_threshold(10_000)  # a command makes many objects that last, and soon ends
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError, ValueError):
                stream.reconfigure(errors="replace")  # type: ignore[union-attr]
        try:
            extra.update(standalone_mode=False, color=colors_wanted())
            code = super().main(args, prog_name or "lrpfast", **extra)
        except (Exception, KeyboardInterrupt) as error:
            code = report(error)
        sys.exit(code if isinstance(code, int) else 0)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f".{COMMANDS[cmd_name]}", __name__), cmd_name)
        return command


@click.group("lrpfast", cls=Lrpfast, help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lrpfast", message="%(prog)s %(version)s")
def main() -> None:
    pass


atexit.register(gc.freeze)  # what is there when the program ends need not be searched for cycles
