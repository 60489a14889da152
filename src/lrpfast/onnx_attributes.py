"""Attributes of nodes as Python values, once they are of the types that ONNX says."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from onnx import NodeProto, TensorProto


def attributes_of(node: NodeProto, known: Mapping[str, int] | None = None) -> dict[str, Any]:
    """A node's attributes; strings decoded.

    Parameters
    ----------
    node : onnx.NodeProto
    known : mapping of str to int, optional
        The attributes that ONNX has for the operator, and their types: from `known_attributes`.

    Raises
    ------
    ModelError
        One has no type; or it is not among those that are known, or of another type.
    """
    from onnx.helper import get_attribute_value

    found = {}
    for attribute in node.attribute:
        if known is not None and known.get(attribute.name) != attribute.type:
            raise ModelError(
                f"its attribute {attribute.name!r} is of type {_title(attribute.type)}; expected "
                + (", ".join(f"{name} of type {_title(kind)}" for name, kind in known.items()) or "none")
            )
        try:
            value = get_attribute_value(attribute)
        except ValueError:
            raise ModelError(
                f"its attribute {attribute.name!r} is of type {_title(attribute.type)}"
            ) from None
        found[attribute.name] = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return found


def lists_of(node: NodeProto) -> dict[str, list[Any]]:
    """The attributes of a node that are lists of numbers or texts, which come as bytes."""
    return {
        name: value
        for name, value in attributes_of(node).items()
        if isinstance(value, list) and all(isinstance(each, (int, float, bytes)) for each in value)
    }


def tensors_of(node: NodeProto) -> Iterator[TensorProto]:
    """The tensors among a node's attributes."""
    for attribute in node.attribute:
        yield attribute.t
        yield from attribute.tensors
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield sparse.values
            yield sparse.indices


def _title(kind: int) -> str:
    """The name of a type in onnx.proto."""
    from onnx import AttributeProto

    names: dict[int, str] = {number: name for name, number in AttributeProto.AttributeType.items()}
    return names.get(kind, str(kind))


@lru_cache(512)
def known_attributes(op_type: str, domain: str, opset: int | None) -> Mapping[str, int] | None:
    """The attributes of an operator, and their types; None if there is no such operator.

    Parameters
    ----------
    op_type, domain : str
    opset : int or None
        None for the newest.
    """
    from onnx import defs

    try:
        schema = (
            defs.get_schema(op_type, domain) if opset is None else defs.get_schema(op_type, opset, domain)
        )
    except defs.SchemaError:
        return None
    return {name: int(each.type) for name, each in schema.attributes.items()}  # type: ignore[call-overload]
