"""One property under libFuzzer, guided by the coverage of lrpfast's own code.

python fuzz/target.py PROPERTY FINDINGS [libFuzzer's options] CORPUS
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import logging
import os
import pkgutil
import random
import resource
import sys
import traceback
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path

import atheris
from google.protobuf.message import DecodeError

sys.path.append(str(Path(__file__).parents[1] / "tests"))

MEMORY = 3 * 2**30
"""Bytes of address space that a process may take beyond those that it has when it starts."""

SKIPPED = ("numba", "__main__")

with atheris.instrument_imports(include=["lrpfast"]):
    import lrpfast

    for found in pkgutil.walk_packages(lrpfast.__path__, "lrpfast."):
        if not any(word in found.name for word in SKIPPED):
            importlib.import_module(found.name)

import onnx  # noqa: E402
from hostile import PROPERTIES  # noqa: E402
from mutations import mutated  # noqa: E402


def main() -> None:
    name, findings = sys.argv[1:3]
    warnings.simplefilter("ignore")
    logging.disable()
    check = PROPERTIES[name]
    seen: set[str] = set()
    corpus = _models(Path(sys.argv[-1])) if name == "model" else []
    counts: dict[str, int] = {}

    def one(data: bytes) -> None:
        try:
            outcome = check(data)
        except Exception as error:
            outcome = "broken"
            _report(error, data, Path(findings), name, seen)
        counts[outcome] = counts.get(outcome, 0) + 1
        if sum(counts.values()) % 1000 == 0:
            print("outcomes:", ", ".join(f"{key} {n}" for key, n in sorted(counts.items())), flush=True)

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        rng = random.Random(seed)
        made = b""
        if rng.random() < 0.9:
            made = _mutated_model(data, rng, corpus) if corpus else _mutated_archive(data, rng)
        return made if 0 < len(made) <= max_size else atheris.Mutate(data, max_size)

    _limit_memory()
    atheris.Setup([sys.argv[0], *sys.argv[3:]], one, custom_mutator=mutate)
    atheris.Fuzz()


def _mutated_model(data: bytes, rng: random.Random, corpus: Sequence[onnx.ModelProto]) -> bytes:
    try:
        model = onnx.ModelProto.FromString(data)
    except DecodeError:  # bytes that an earlier mutation broke
        model = rng.choice(corpus)
    made: bytes = mutated(model, rng, corpus).SerializeToString()
    return made


def _mutated_archive(data: bytes, rng: random.Random) -> bytes:
    """A ZIP archive one of whose members is mutated, with a checksum that fits; nothing for other data."""
    if not data.startswith(b"PK"):
        return b""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    except Exception:  # zipfile fails on damaged archives in every way there is
        return b""
    if not members:
        return b""
    chosen = rng.choice(sorted(members))
    members[chosen] = atheris.Mutate(members[chosen], 2 * len(members[chosen]) + 64)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def _models(folder: Path) -> list[onnx.ModelProto]:
    """Small models whose nodes are brought into others."""
    found = []
    for path in sorted(folder.iterdir()):
        with contextlib.suppress(DecodeError):
            if path.stat().st_size < 4096:
                found.append(onnx.ModelProto.FromString(path.read_bytes()))
    return found


def _report(error: Exception, data: bytes, folder: Path, name: str, seen: set[str]) -> None:
    """Keep the first input that fails in a way, and say how."""
    origin = error.__cause__ or error
    frames = [f for f in traceback.extract_tb(origin.__traceback__) if "/lrpfast/" in f.filename]
    where = f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else "hostile"
    key = f"{type(error).__name__} in {where}"
    if key in seen:
        return
    seen.add(key)
    path = folder / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
    if not path.exists():
        path.write_bytes(data)
        print(f"FOUND {key}: {path}\n{''.join(traceback.format_exception(error)[-12:])}", flush=True)


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    main()
