"""Attributes of nodes as Python values, once they are of the types that ONNX says."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnx import NodeProto


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


def _title(kind: int) -> str:
    """The name of a type in onnx.proto."""
    from onnx import AttributeProto

    names: dict[int, str] = {number: name for name, number in AttributeProto.AttributeType.items()}
    return names.get(kind, str(kind))


@lru_cache(512)
def known_attributes(op_type: str, opset: int) -> Mapping[str, int] | None:
    """The attributes of an operator in an operator set, and their types; None if there is no such operator."""
    from onnx import defs

    if not defs.has(op_type):
        return None
    try:
        schema = defs.get_schema(op_type, opset)
    except defs.SchemaError:
        return None
    return {name: int(each.type) for name, each in schema.attributes.items()}  # type: ignore[call-overload]
