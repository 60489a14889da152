"""Packages that only some features need: imported when they are, or an error says how to get them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .errors import MissingPackageError


def need(package: str, extra: str, purpose: str) -> Any:
    """Import a package that an extra of lrpfast installs.

    Parameters
    ----------
    package : str
        A module's name; what stands before the first dot is what messages call it.
    extra : str
        The extra that brings it.
    purpose : str
        What needs it: the subject of the message.

    Raises
    ------
    MissingPackageError
        It cannot be imported.
    """
    try:
        return import_module(package)
    except ImportError as error:
        name = package.partition(".")[0]
        absent = isinstance(error, ModuleNotFoundError) and error.name == name
        what = "which is not installed" if absent else f"which cannot be imported ({error})"
        raise MissingPackageError(
            f'{purpose} needs {name}, {what}; pip install "lrpfast[{extra}]"'
        ) from error
