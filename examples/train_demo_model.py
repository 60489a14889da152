"""Train the demonstration network on Fashion-MNIST and write it, with some test images, for `lrpfast.demo`.

    python examples/train_demo_model.py --data /usr/share/datasets/fashion-mnist

An epoch takes some 40 s on two cores. Needs torch and onnxruntime, and the four `*-ubyte.gz` files
of Fashion-MNIST (Debian: the package `dataset-fashion-mnist`). The seed and the number of threads
are fixed: on one machine a run repeats itself.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import time
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lrpfast import demo

CLEAR_CLASSES = ("T-shirt/top", "Trouser", "Dress", "Sandal", "Sneaker", "Bag", "Ankle boot")
"""A sample is shown of each of these, classified rightly."""


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read a gzipped IDX file: 0, 0, the type (8: uint8), the number of axes, their lengths, the data."""
    content = gzip.decompress(path.read_bytes())
    if content[:3] != b"\0\0\x08":
        raise ValueError(f"{path} starts with {content[:3]!r}, not with that of an IDX file of bytes")
    axes = content[3]
    shape = np.frombuffer(content, ">i4", axes, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


def block(inputs: int, outputs: int, pool: bool) -> nn.Sequential:
    """Convolution, batch normalization and ReLU, followed by a halving of the size if `pool`."""
    layers = [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, *([nn.MaxPool2d(2)] if pool else []))


def build() -> nn.Sequential:
    """The network, from (n, 1, 28, 28) to logits (n, 10)."""
    return nn.Sequential(
        block(1, 16, pool=False),
        block(16, 24, pool=True),
        block(24, 40, pool=False),
        block(40, 48, pool=True),
        block(48, 56, pool=False),
        nn.AvgPool2d(7),
        nn.Flatten(),
        nn.Linear(56, 10),
    )


def augment(images: Tensor, shift: int = 2) -> Tensor:
    """Mirror half of the images (n, 1, h, w) and move each by up to `shift` pixels either way."""
    n, _, height, width = images.shape
    images = torch.where(torch.rand(n, 1, 1, 1) < 0.5, images, images.flip(-1))
    padded = nn.functional.pad(images, [shift] * 4)
    rows = torch.arange(height) + torch.randint(2 * shift + 1, (n, 1))
    columns = torch.arange(width) + torch.randint(2 * shift + 1, (n, 1))
    sample = torch.arange(n)[:, None, None]
    return padded[sample, 0, rows[:, :, None], columns[:, None, :]][:, None]


def train(net: nn.Module, images: Tensor, labels: Tensor, epochs: int, batch: int = 128) -> None:
    """Minimise the cross-entropy with AdamW, its learning rate rising and falling once."""
    steps = len(images) // batch
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.01, total_steps=epochs * steps)
    for epoch in range(epochs):
        net.train()
        start, total = time.perf_counter(), 0.0
        for chosen in torch.randperm(len(images))[: steps * batch].view(steps, batch):
            loss = nn.functional.cross_entropy(net(augment(images[chosen])), labels[chosen])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            total += loss.item()
        seconds = time.perf_counter() - start
        print(f"epoch {epoch + 1:2}/{epochs}: loss {total / steps:.4f}, {seconds:.0f} s", flush=True)
    net.eval()


def export(net: nn.Module, path: Path) -> None:
    """Write the network with a Softmax at its end, and the class names in its metadata."""
    with warnings.catch_warnings():
        # The older exporter, which says so: the newer one would fold BatchNormalization away.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            nn.Sequential(*net.children(), nn.Softmax(dim=1)).eval(),
            (torch.zeros(1, 1, 28, 28),),
            path,
            dynamo=False,
            opset_version=13,
            training=torch.onnx.TrainingMode.PRESERVE,
            input_names=["image"],
            output_names=["probabilities"],
            dynamic_axes={"image": {0: "n"}, "probabilities": {0: "n"}},
        )
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"labels": json.dumps(demo.LABELS)})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def predict(path: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities (n, 10) that onnxruntime computes."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    probabilities: NDArray[np.float32] = session.run(None, {"image": demo.prepare(images)})[0]
    return probabilities


def choose(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> list[int]:
    """Places in the test set of the samples: clear ones, then one that the network gets wrong.

    They are the first of their kind, so that nobody picks the beautiful ones: for each of
    `CLEAR_CLASSES` the first image given its class with at least .9, and the first
    image given another with at least .6.
    """
    top, confidence = probabilities.argmax(1), probabilities.max(1)
    clear = [
        int(np.flatnonzero((labels == demo.LABELS.index(name)) & (top == labels) & (confidence >= 0.9))[0])
        for name in CLEAR_CLASSES
    ]
    return [*clear, int(np.flatnonzero((top != labels) & (confidence >= 0.6))[0])]


def main() -> None:
    """Read the arguments, train, export, measure, save."""
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("--data", type=Path, required=True, help="folder of the four *-ubyte.gz files")
    parser.add_argument("--out", type=Path, default=demo.MODEL.parent, help="folder to write (%(default)s)")
    parser.add_argument("--epochs", type=int, default=12, help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="(%(default)s)")
    arguments = parser.parse_args()

    torch.manual_seed(arguments.seed)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(arguments.threads)

    images, test_images = (read_idx(arguments.data / f"{s}-images-idx3-ubyte.gz") for s in ("train", "t10k"))
    labels, test_labels = (
        read_idx(arguments.data / f"{s}-labels-idx1-ubyte.gz").astype(np.int64) for s in ("train", "t10k")
    )
    net = build().to(memory_format=torch.channels_last)  # a third faster on a CPU
    print(f"{sum(p.numel() for p in net.parameters())} parameters, {len(images)} training images")
    train(net, torch.from_numpy(demo.prepare(images)), torch.from_numpy(labels), arguments.epochs)

    path = arguments.out / demo.MODEL.name
    export(net, path)
    probabilities = predict(path, test_images)
    correct = int((probabilities.argmax(1) == test_labels).sum())
    chosen = choose(probabilities, test_labels)
    np.savez_compressed(
        arguments.out / demo.SAMPLES.name,
        images=test_images[chosen],
        labels=test_labels[chosen],
        indices=np.array(chosen),
        probabilities=probabilities[chosen],
    )
    print(f"test accuracy in onnxruntime: {correct} of {len(test_labels)} = {correct / len(test_labels):.4f}")
    print(f"{path}: {path.stat().st_size} bytes, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main()
