"""Train the bundled backbone on formula textures, alone or with a teacher's features as a second target."""

import argparse
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

from novad.pretraining.textures import FormulaTextures
from novad.vision.bcos_network import ARCHITECTURE, WIDTH, bcos_encoding, build_bcos_network

__all__ = ["main", "train"]

LAYERS = ("layer1", "layer2", "layer3")


class Teacher(nn.Module):
    """MobileNetV2's features at strides 4, 8 and 16, standardised per channel over the batch.

    Args:
        checkpoint: local safetensors file that loads strictly into ``mobilenetv2_100`` (see the model card).
    """

    channels = (24, 32, 96)

    def __init__(self, checkpoint: Path) -> None:
        super().__init__()
        import timm
        from safetensors.torch import load_file

        weights = {name: tensor.float() for name, tensor in load_file(checkpoint).items()}
        whole = timm.create_model("mobilenetv2_100", num_classes=1001, pad_type="same")
        whole.load_state_dict(weights, strict=True)
        self.network: Any = timm.create_model(
            "mobilenetv2_100", features_only=True, out_indices=(1, 2, 3), pad_type="same"
        )
        self.network.load_state_dict(whole.state_dict(), strict=False)
        self.network.eval().requires_grad_(False)
        self.standardise = nn.ModuleList(nn.BatchNorm2d(count, affine=False) for count in self.channels)

    @torch.no_grad()
    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) in [0, 1] to three standardised feature maps."""
        features = self.network(images * 2 - 1)
        return [norm(feature) for norm, feature in zip(self.standardise, features, strict=True)]


class Student(nn.Module):
    """The backbone with its pretraining head and, for distillation, one linear adapter per layer."""

    def __init__(self, categories: int, teacher_channels: tuple[int, ...]) -> None:
        super().__init__()
        self.network: Any = build_bcos_network(categories)
        self.adapters = nn.ModuleList(
            nn.Conv2d(WIDTH * 2**depth, channels, 1) for depth, channels in enumerate(teacher_channels)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(N, 3, H, W) in [0, 1] to (N, categories) logits and the adapted features."""
        net = self.network
        x = net.pool(net.bn1(net.conv1(bcos_encoding(images))))
        adapted = []
        for depth, name in enumerate(LAYERS):
            x = getattr(net, name)(x)
            if len(self.adapters):
                adapted.append(self.adapters[depth](x))
        return net.fc(x).mean(dim=(2, 3)), adapted


def train(arguments: argparse.Namespace) -> Path:
    """Run the recipe and write checkpoint and card; returns the checkpoint's path."""
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    data = FormulaTextures(
        arguments.steps * arguments.batch, arguments.categories, arguments.size, arguments.seed
    )
    loader = DataLoader(data, arguments.batch, num_workers=arguments.workers)
    teacher = Teacher(arguments.teacher) if arguments.teacher else None
    student = Student(arguments.categories, Teacher.channels if teacher else ())
    optimiser = torch.optim.AdamW(student.parameters(), lr=arguments.learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, arguments.learning_rate, total_steps=arguments.steps + 1, pct_start=0.1
    )
    learn, watch = _compiled(student, arguments), _compiled(teacher, arguments)
    report = _Report(arguments.steps)
    for step, (pixels, categories) in enumerate(loader, start=1):
        images = pixels.float() / 255
        logits, adapted = learn(images)
        classification = F.cross_entropy(logits, categories, label_smoothing=0.1)
        distillation = _distance(adapted, watch(images)) if watch is not None else torch.zeros(())
        optimiser.zero_grad()
        (classification + arguments.distillation * distillation).backward()
        nn.utils.clip_grad_norm_(student.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        accuracy = (logits.argmax(1) == categories).float().mean()
        report.add(step, classification, distillation, accuracy)
        if step % 1000 == 0 or step == arguments.steps:
            save(student.network, arguments)
    return Path(arguments.out)


def _compiled(module: nn.Module | None, arguments: argparse.Namespace) -> Any:
    return torch.compile(module) if arguments.compile and module is not None else module


def _distance(adapted: list[Tensor], targets: list[Tensor]) -> Tensor:
    """Mean squared distance to the teacher's standardised features, averaged over layers."""
    pairs = zip(adapted, targets, strict=True)
    return torch.stack([F.mse_loss(mine, theirs) for mine, theirs in pairs]).mean()


class _Report:
    """Means of the last hundred steps, printed."""

    def __init__(self, steps: int) -> None:
        self.steps, self.started, self.sums, self.count = steps, time.perf_counter(), torch.zeros(3), 0

    def add(self, step: int, *figures: Tensor) -> None:
        """Take one step's cross-entropy, distillation loss and accuracy."""
        self.sums += torch.stack([figure.detach() for figure in figures])
        self.count += 1
        if step % 100 and step != self.steps:
            return
        entropy, distance, accuracy = (self.sums / self.count).tolist()
        self.sums, self.count = torch.zeros(3), 0
        print(
            f"step {step} of {self.steps}: cross-entropy {entropy:.3f}, distillation {distance:.3f}, "
            f"accuracy {accuracy:.3f}, {time.perf_counter() - self.started:.0f} s",
            flush=True,
        )


def save(network: nn.Module, arguments: argparse.Namespace) -> None:
    """Write the backbone without its head, in half precision, with a card that names the recipe."""
    weights = {
        name: tensor.half().contiguous() if tensor.is_floating_point() else tensor
        for name, tensor in network.state_dict().items()
        if not name.startswith("fc.") and not name.endswith("num_batches_tracked")
    }
    out = Path(arguments.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, out, metadata={"novad": ARCHITECTURE})
    recipe = {
        key: value
        for key, value in vars(arguments).items()
        if key not in {"out", "teacher", "threads", "workers"}
    }
    recipe["teacher_sha256"] = (
        hashlib.sha256(Path(arguments.teacher).read_bytes()).hexdigest() if arguments.teacher else None
    )
    card = {
        "architecture": ARCHITECTURE,
        "sha256": hashlib.sha256(out.read_bytes()).hexdigest(),
        "parameters": sum(parameter.numel() for parameter in weights.values()),
        "recipe": recipe,
    }
    out.with_suffix(".json").write_text(json.dumps(card, indent=2, sort_keys=True) + "\n", "utf-8")


def main() -> None:
    """Parse the command line and run the recipe."""
    parser = argparse.ArgumentParser(prog="python -m novad.pretraining", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("weights/novad-bcos.safetensors"))
    parser.add_argument("--teacher", type=Path, help="local MobileNetV2 checkpoint; without it, labels alone")
    parser.add_argument("--distillation", type=float, default=3.0, help="weight of the teacher's features")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--categories", type=int, default=512)
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument(
        "--compile", action="store_true", help="let torch compile the step (needs a C++ compiler)"
    )
    train(parser.parse_args())
