"""``lrpfast rules`` and ``lrpfast composites``: what there is to choose from."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import click

from ..composites import COMPOSITES
from ..rules import RULES, Rule
from .composing import BOXED
from .console import print_json
from .options import json_option

RULES_HELP = """List the rules: how a layer's relevance is shared among its inputs.

    \b
    Examples:
      lrpfast rules
      lrpfast rules --json | jq '.[].name'
    """

COMPOSITES_HELP = """List the composites: which kind of layer gets which rule.

    Parameters are set with --param NAME=VALUE; those without a default must be given (for pictures, low
    and high follow from --preprocess).

    \b
    Examples:
      lrpfast composites
      lrpfast explain model.onnx x.npy -o r.npy -c epsilon_plus -p epsilon=0.1
    """


@click.command("rules", short_help="List the rules.", help=RULES_HELP)
@json_option
def rules(as_json: bool) -> None:
    found = [
        {"name": name, "for": _family(rule), "doc": _first_line(rule), "parameters": _parameters(rule)}
        for name, rule in RULES.items()
    ]
    _show(found, as_json)


@click.command("composites", short_help="List the composites.", help=COMPOSITES_HELP)
@json_option
def composites(as_json: bool) -> None:
    found = []
    for name, preset in COMPOSITES.items():
        made = preset(low=0.0, high=1.0) if name in BOXED else preset()
        entries = [{"selector": str(selector), "rule": type(rule).__name__} for selector, rule in made.rules]
        found.append({"name": name, "doc": _first_line(preset), "parameters": _parameters(preset),
                      "init": made.init, "rules": entries})  # fmt: skip
    _show(found, as_json)


def _show(found: list[dict[str, Any]], as_json: bool) -> None:
    """Entries as JSON, or each in two or three lines."""
    if as_json:
        print_json(found)
        return
    for entry in found:
        parameters = ", ".join(
            name if default is None else f"{name}={default}" for name, default in entry["parameters"].items()
        )
        name = entry["name"]
        head = click.wrap_text(f"{name}({parameters})", 84, "", "    ")
        click.echo(click.style(name, bold=True) + head[len(name) :])
        click.echo(click.wrap_text(entry["doc"], 78, "    ", "    "))


def _first_line(thing: Any) -> str:
    """The first paragraph of a docstring, without references to the literature."""
    paragraph = " ".join(inspect.getdoc(thing).split("\n\n")[0].split())  # type: ignore[union-attr]
    return re.sub(r" \((?:generalised as in )?\[\d\][^)]*\)|`", "", paragraph)


def _parameters(thing: Callable[..., Any]) -> dict[str, Any]:
    """Names and defaults; None stands for one that must be given."""
    signature = inspect.signature(thing).parameters.values()
    return {p.name: None if p.default is inspect.Parameter.empty else p.default for p in signature}


def _family(rule: type[Rule]) -> str:
    return rule.family.fget(rule)  # type: ignore[attr-defined, no-any-return]
