"""torchvision's architectures with seeded weights, nearly all on pictures of 64 pixels.

>>> net = architecture("densenet121")
>>> net.path, net.module, net.pictures(2)

They are exported once per machine into the folder of networks.py, as the older exporter does it: what ONNX has
no operator for at opset 15 comes in pieces, such as SiLU, GELU and layer normalization.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import networks
import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    import torch

ARCHITECTURES = {
    "alexnet": 224, "resnet34": 64, "resnext50_32x4d": 64, "wide_resnet50_2": 64, "densenet121": 64,
    "squeezenet1_1": 64, "inception_v3": 128, "googlenet": 64, "mobilenet_v2": 64, "mobilenet_v3_small": 64,
    "mobilenet_v3_large": 64, "shufflenet_v2_x1_0": 64, "mnasnet1_0": 64, "efficientnet_b0": 64,
    "efficientnet_v2_s": 64, "regnet_x_400mf": 64, "regnet_y_400mf": 64, "convnext_tiny": 64,
}  # fmt: skip
"""Names in torchvision, and the side of the pictures."""


@dataclass(frozen=True)
class Architecture:
    """A network in its two forms.

    Attributes
    ----------
    name : str
    path : Path
        The ONNX file: float32, symbolic batch, logits.
    size : int
        Side of its pictures.
    """

    name: str
    path: Path
    size: int

    def pictures(self, n: int) -> NDArray[np.float32]:
        """Up to three photographs, scaled down, (n, 3, size, size)."""
        return _pictures(self.size)[:n]

    @cached_property
    def module(self) -> torch.nn.Module:
        """The torch network in float32 and evaluation mode; copy it before changing anything."""
        import torch

        module = _empty(self.name)
        module.load_state_dict(torch.load(self.path.with_suffix(".pt"), weights_only=True))
        for m in module.modules():
            if isinstance(m, torch.nn.BatchNorm2d):
                m.eps = float(np.float32(m.eps))  # what the file holds
        return module.eval().requires_grad_(False)


@lru_cache(maxsize=1)
def architecture(name: str) -> Architecture:
    """One of `ARCHITECTURES`, exported first if this machine has not done so; the last one stays in memory."""
    import torch

    size = ARCHITECTURES[name]
    path = networks.CACHE / f"small-{name}-{_key()}.onnx"
    weights = path.with_suffix(".pt")
    if not path.exists():
        networks.CACHE.mkdir(parents=True, exist_ok=True)
        for outdated in networks.CACHE.glob(f"small-{name}-*"):
            outdated.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory(dir=networks.CACHE) as folder:
            draft = Path(folder) / path.name
            with torch.random.fork_rng():
                torch.manual_seed(0)
                module = _empty(name)
                _fill(module, _pictures(size))
            networks.export(module.eval(), draft, (3, size, size))
            torch.save(module.state_dict(), weights)
            draft.replace(path)
    return Architecture(name, path, size)


def _empty(name: str) -> torch.nn.Module:
    """The module with no weights in it: to draw its usual ones takes seconds."""
    import torch
    import torchvision

    # The auxiliary heads are for training, and want larger pictures.
    more: dict[str, Any] = (
        {"aux_logits": False, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
    )
    computes = name.startswith("regnet")  # with tensors, while it is made
    with torch.device("cpu" if computes else "meta"):
        module: torch.nn.Module = torchvision.models.get_model(name, weights=None, **more)
    return module.to_empty(device="cpu")


def _fill(module: torch.nn.Module, pictures: NDArray[np.float32]) -> None:
    """Give a module weights with which signals neither vanish nor explode, and norms the statistics of pictures."""
    import torch
    from torch import nn

    for m in module.modules():
        if isinstance(m, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(m.weight)
            if m.bias is not None:
                nn.init.normal_(m.bias, 0, 0.1)
        elif isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.weight, 0.7, 1.3)
            nn.init.normal_(m.bias, 0, 0.3)
            m.reset_running_stats()
            m.momentum = None  # the running statistics become the averages over the batches
        elif isinstance(m, nn.LayerNorm):
            nn.init.uniform_(m.weight, 0.7, 1.3)
            nn.init.normal_(m.bias, 0, 0.3)
    for name, parameter in module.named_parameters():
        if name.endswith("layer_scale"):
            nn.init.uniform_(parameter, 0.2, 0.4)  # at the start of a training it is 1e-6, which says nothing
    with torch.no_grad():
        module.train()
        # Views enough that no channel is nearly constant on all: dividing by its deviation would magnify rounding.
        views = np.concatenate([np.roll(pictures, 5 * i, axis=(2, 3)) for i in range(4)])
        module(torch.from_numpy(np.concatenate([views, views[..., ::-1]])))


@cache
def _pictures(size: int) -> NDArray[np.float32]:
    taken = []
    for name in networks.PHOTOGRAPHS:
        picture = Image.open(networks.photograph_path(name)).convert("RGB")
        small = networks.crop(picture, shorter=size, size=size)
        taken.append((np.asarray(small, np.float32).transpose(2, 0, 1) - 127) / 128)
    return np.stack(taken)


def _key() -> str:
    """What a cached file depends on: this file and the versions of the libraries."""
    parts = (Path(__file__).read_text(), version("torch"), version("torchvision"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
