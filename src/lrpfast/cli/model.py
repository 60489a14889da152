"""``lrpfast check`` and ``lrpfast inspect``: a model, stage by stage, with nothing explained yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from .. import backends
from ..canonize import Canonized
from ..composites import Assignment, assign
from ..errors import LrpfastError
from ..graph import Fact, Graph, Node
from ..lower import lower
from ..network import Network
from ..plan import Plan
from ..steps import Step
from .composing import make_composite_to_look_at
from .console import REFUSED, Failure, OneOf, note, print_json, print_table, translate
from .options import (
    Parameters,
    backend_option,
    composite_options,
    dtype_option,
    input_shape_option,
    json_option,
    load_network,
    model_argument,
    output_option,
)

if TYPE_CHECKING:
    from ..onnx_inputs import InputShape

STAGES = ("graph", "canonized", "rules", "plan")

CHECK_HELP = """Say which rule every node of MODEL gets, and why; or what stands in the way.

    Nothing is computed. Exits with 1 if the model or the composite is refused; then the nodes in the way
    are listed instead.

    \b
    Examples:
      lrpfast check model.onnx
      lrpfast check model.onnx --composite epsilon_gamma_box
      lrpfast check model.onnx --json | jq '.rules[] | .node + ": " + .rule'
    """

INSPECT_HELP = """Print what becomes of MODEL on its way to an explanation.

    \b
    Stages:
      graph      the nodes as they were read
      canonized  after batch normalization was folded and the final Softmax,
                 Sigmoid or label cut off, with what that changes in the
                 prediction
      rules      the rule of each node, and the selector that chose it
      plan       the kernel calls, forward and back, with the form that was chosen

    \b
    Examples:
      lrpfast inspect model.onnx --stage canonized
      lrpfast inspect model.onnx --stage plan --composite epsilon_gamma_box
    """


@click.command(short_help="Can a model be explained, and by which rules?", help=CHECK_HELP)
@model_argument
@composite_options
@input_shape_option
@output_option
@json_option
def check(
    model: str, composite: str, parameters: Parameters, low: float | None,
    high: float | None, input_shape: InputShape | None, output: str | None, as_json: bool,
) -> None:  # fmt: skip
    try:
        network = load_network(model, input_shape, output)
        graph = network.canonized().graph
        chosen = make_composite_to_look_at(composite, parameters, low, high, graph)
        assigned = assign(chosen, graph)
    except (Failure, LrpfastError) as error:
        failure = translate(error)
        raise (_refused(failure, as_json) if failure.exit_code == REFUSED else failure) from error
    if as_json:
        print_json(
            {
                "ok": True,
                "composite": chosen.name,
                "notes": network.notes,
                "rules": _rules_document(graph, assigned),
            }
        )
    else:
        _print_rules(graph, assigned)
        for line in network.notes:
            note(line)
        note(f"{network.name} can be explained: {chosen.name} has a rule for all {len(graph.nodes)} nodes")


def _refused(failure: Failure, as_json: bool) -> Failure:
    """Print what stands in the way; what remains to be said in words."""
    head, *lines = failure.message.splitlines()
    refusals = [line.strip() for line in lines if line.startswith("  ")]
    advice = " ".join(line for line in lines if not line.startswith("  "))
    if as_json:
        print_json({"ok": False, "error": head.rstrip(":"), "refusals": refusals})
    else:
        for line in refusals:
            click.echo(line)
    return Failure(head, REFUSED, advice or failure.hint)


@click.command("inspect", short_help="Print a model's graph, rules or plan.", help=INSPECT_HELP)
@model_argument
@click.option("-s", "--stage", type=OneOf("stage", STAGES), default="graph", show_default=True)
@composite_options
@input_shape_option
@output_option
@backend_option
@dtype_option
@json_option
def inspect(
    model: str, stage: str, composite: str, parameters: Parameters, low: float | None,
    high: float | None, input_shape: InputShape | None, output: str | None, backend: str | None,
    dtype: str, as_json: bool,
) -> None:  # fmt: skip
    network = load_network(model, input_shape, output)
    if stage in ("graph", "canonized"):
        _show_graph(network, network.canonized(dtype) if stage == "canonized" else None, dtype, as_json)
        return
    graph = network.canonized(dtype).graph
    chosen = make_composite_to_look_at(composite, parameters, low, high, graph)
    assigned = assign(chosen, graph)
    if stage == "rules":
        if as_json:
            print_json({"composite": chosen.name, "rules": _rules_document(graph, assigned)})
        else:
            _print_rules(graph, assigned)
        return
    plan = lower(graph, assigned, backends.get(backend), dtype)
    if as_json:
        print_json({"composite": chosen.name, "backend": plan.backend.name, "dtype": str(plan.dtype),
                    "steps": [_step_document(*step) for step in _steps(plan)]})  # fmt: skip
    else:
        rows = ((pass_, step.node, step.label(), form) for pass_, step, form in _steps(plan))
        print_table(("pass", "node", "step", "form"), rows)


def _show_graph(network: Network, canonized: Canonized | None, dtype: str, as_json: bool) -> None:
    """The nodes; of a canonised graph also what was changed, and what difference that makes."""
    graph = network.graph if canonized is None else canonized.graph
    difference = None if canonized is None else network.canonization_error(dtype=dtype)
    if as_json:
        document: dict[str, Any] = {
            "inputs": {name: fact.shape for name, fact in graph.inputs.items()},
            "output": graph.output, "output_shape": graph.output_shape,
            "nodes": [_node_document(graph, node) for node in graph.nodes],
        }  # fmt: skip
        if canonized is not None:
            document.update(changes=canonized.changes, max_forward_difference=difference)
        print_json(document)
        return
    for change in () if canonized is None else canonized.changes:
        click.echo(change)
    if difference is not None:
        click.echo(f"max|Δforward| = {difference:.1e} of max|forward|, over 4 random samples in {dtype}\n")
    rows = [(f"({name})", "", "", _shape(fact.shape), _sign(fact)) for name, fact in graph.inputs.items()]
    for node in graph.nodes:
        reads = ", ".join(graph.producers[name].name if name in graph.producers else f"({name})"
                          for name in node.inputs)  # fmt: skip
        fact = graph.facts[node.output]
        rows.append((node.name, node.op.kinds[0], reads, _shape(fact.shape), _sign(fact)))
    print_table(("node", "op", "reads", "output", "sign"), rows)


def _sign(fact: Fact) -> str:
    return "≥ 0" if fact.nonnegative else ""


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "number"


def _node_document(graph: Graph, node: Node) -> dict[str, Any]:
    """A node as JSON; of parameters the shapes only."""
    values = {field.name: getattr(node.op, field.name) for field in fields(node.op)}  # type: ignore[arg-type]
    parameters = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
    return {
        "name": node.name,
        "op": node.op.kinds[0],
        "inputs": node.inputs,
        "output": node.output,
        "shape": graph.facts[node.output].shape,
        "nonnegative": graph.facts[node.output].nonnegative,
        "parameters": {name: value.shape for name, value in parameters.items()},
        "attributes": {name: _plain(value) for name, value in values.items() if name not in parameters},
    }


def _plain(value: Any) -> Any:
    """An attribute as JSON can have it."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, (float, np.number)) and np.isfinite(value):
        return value if isinstance(value, float) else value.item()
    return str(value)


def _print_rules(graph: Graph, assigned: Mapping[str, Assignment]) -> None:
    rows = ((row["node"], row["op"], row["rule"], row["reason"]) for row in _rules_document(graph, assigned))
    print_table(("node", "op", "rule", "reason"), rows)


def _rules_document(graph: Graph, assigned: Mapping[str, Assignment]) -> list[dict[str, str]]:
    return [
        {
            "node": node.name,
            "op": node.op.kinds[0],
            "rule": str(assigned[node.name].rule),
            "reason": assigned[node.name].reason,
        }
        for node in graph.nodes
    ]


def _steps(plan: Plan) -> list[tuple[str, Step, str]]:
    """The pass, the step, and its form in words."""
    steps = [("forward", step) for step in plan.forward] + [("vjp", step) for step in plan.vjp]
    return [(*step, form) for step, form in zip(steps, plan.forms(), strict=True)]


def _step_document(pass_: str, step: Step, form: str) -> dict[str, Any]:
    return {
        "pass": pass_, "node": step.node, "step": step.label(), "form": form,
        "reads": step.reads(), "writes": step.writes(),
    }  # fmt: skip
