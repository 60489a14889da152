"""Options that several commands share, and the loading of models."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..composites import COMPOSITES
from ..errors import InputError, ModelError
from ..memory import memory_limit
from .console import REFUSED, Failure, OneOf, translate, usage

if TYPE_CHECKING:
    from ..network import Network
    from ..onnx_inputs import InputShape

Parameters = tuple[tuple[str, float | str], ...]
"""What --param gives."""

Command = TypeVar("Command", bound=Callable[..., Any])


class ShapeType(click.ParamType):  # type: ignore[type-arg]
    """``3,224,224`` or ``3x224x224``; with names ``left:3x224x224,right:10``."""

    name = "shape"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> InputShape:
        named: dict[str, list[str]] = {}
        sizes: list[str] = []
        for part in str(value).split(","):
            name, colon, size = part.rpartition(":")
            if colon:
                sizes = named.setdefault(name.strip(), [])
            sizes.extend(size.split("x"))
        if named:
            return {name: _sizes(value, each) for name, each in named.items()}
        return _sizes(value, sizes)


def _sizes(value: Any, sizes: Sequence[str]) -> tuple[int, ...]:
    try:
        shape = tuple(int(size) for size in sizes)
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise usage(
            f"--input-shape is {value!r}; expected positive whole numbers",
            "such as 3,224,224: one sample, without the batch axis; or NAME:3x224x224 for each input",
        )
    return shape


def _shapes(ctx: click.Context, param: click.Parameter, values: tuple[InputShape, ...]) -> InputShape | None:
    """All that ``--input-shape`` says."""
    named = [value for value in values if isinstance(value, Mapping)]
    if len(values) > 1 and len(named) < len(values):
        raise usage("--input-shape is given more than once", "name the inputs: --input-shape NAME:3x224x224")
    if named:
        return {name: shape for value in named for name, shape in value.items()}
    return values[0] if values else None


class ParameterType(click.ParamType):  # type: ignore[type-arg]
    """``NAME=NUMBER``, or ``NAME=WORD`` for a parameter that takes one of some words."""

    name = "parameter"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, float | str]:
        name, _, given = (part.strip() for part in str(value).partition("="))
        try:
            return name, float(given)
        except ValueError:
            if name and given:
                return name, given
            raise usage(f"--param is {value!r}; expected NAME=VALUE", "such as --param gamma=0.5") from None


class MemoryType(click.ParamType):  # type: ignore[type-arg]
    """``512MB`` or ``1.5GiB``; a number alone is bytes."""

    name = "memory"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        text = str(value).strip()
        try:
            return memory_limit(int(text) if text.isdecimal() else text)
        except InputError:
            raise usage(
                f"--max-memory is {value!r}; expected a size", "such as 512MB or 1.5GiB, or bytes"
            ) from None


def apply(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several click decorators as one, in the order in which they are written."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


model_argument = click.argument("model", type=click.Path())

input_shape_option = click.option(
    "--input-shape", type=ShapeType(), metavar="3,224,224", multiple=True, callback=_shapes,
    help="Shape of one sample, where the model leaves it open; NAME:3x224x224 for each of several inputs.",
)  # fmt: skip

output_option = click.option(
    "--output",
    metavar="NAME",
    help="Output of the model to explain, where it has several; or any array in it.",
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")

composite_options = apply(
    click.option(
        "-c", "--composite", "composite", type=OneOf("composite", COMPOSITES, "NAME"),
        default="epsilon_plus_flat", show_default=True,
        help="Which rule goes where; `lrpfast composites` lists them.",
    ),
    click.option(
        "-p", "--param", "parameters", type=ParameterType(), multiple=True, metavar="NAME=VALUE",
        help="A parameter of the composite, such as epsilon=0.1 or sums=abs; repeatable.",
    ),
    click.option("--low", type=float, help="Smallest value of the input, for composites with a box."),
    click.option("--high", type=float, help="Largest value."),
)  # fmt: skip

threads_option = click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="At most so many threads.  [default: all there are]",
)

memory_option = click.option(
    "--max-memory", type=MemoryType(), metavar="SIZE",
    help="At most so much memory for a run's arrays, such as 512MB.  [default: no limit]",
)  # fmt: skip

backend_option = click.option(
    "--backend", type=OneOf("backend", ("native", "numba", "numpy")),
    help="What computes.  [default: the best one here]",
)  # fmt: skip

dtype_option = click.option(
    "--dtype", type=OneOf("dtype", ("float32", "float64")), default="float32", show_default=True,
    help="What everything is computed in.",
)  # fmt: skip


def load_network(path: str, input_shape: InputShape | None, output: str | None) -> Network:
    """Read the model; what is wrong with it is said with the file's name."""
    from ..api import load

    with reading_model(path):
        return load(path, input_shape, output=output)


@contextlib.contextmanager
def reading_model(path: str) -> Iterator[None]:
    """What goes wrong with a model file in this block is said with its name."""
    if not os.path.exists(path):
        raise Failure(f"there is no model {path!r}", REFUSED, "give the path of an .onnx file")
    if os.path.isdir(path):
        raise Failure(f"the model {path!r} is a folder", REFUSED, "give the path of an .onnx file in it")
    try:
        yield
    except ModelError as error:
        failure = translate(error)
        message = failure.message if path in failure.message else f"{path}: {failure.message}"
        raise Failure(message, REFUSED, failure.hint) from error
    except OSError as error:
        raise Failure(f"cannot read the model {path!r}: {error.strerror or error}", REFUSED) from error
