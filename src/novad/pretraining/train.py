"""Train small B-cos students on formula images, by labels, by a teacher's features, or by both."""

import argparse
import hashlib
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

from novad.pretraining.recipes import COMPARED, DEFAULT, Recipe
from novad.pretraining.teacher import Teacher
from novad.pretraining.textures import FormulaTextures
from novad.pretraining.views import views
from novad.vision.bcos_network import ARCHITECTURE, bcos_encoding, build_bcos_network

__all__ = ["main", "train"]

LAYERS = ("layer1", "layer2", "layer3")


class Student(nn.Module):
    """The backbone with its pretraining head and, for distillation, one linear adapter per layer."""

    def __init__(self, recipe: Recipe, categories: int, teacher_channels: tuple[int, ...]) -> None:
        super().__init__()
        self.network: Any = build_bcos_network(categories, recipe.layout)
        self.adapters = nn.ModuleList(
            nn.Conv2d(recipe.layout.width * 2**depth, channels, 1)
            for depth, channels in enumerate(teacher_channels)
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


class Course:
    """One student, its optimiser and what it has learned so far."""

    def __init__(self, recipe: Recipe, arguments: argparse.Namespace, teacher: Teacher | None) -> None:
        torch.manual_seed(arguments.seed)
        self.recipe = recipe
        channels = teacher.channels if teacher is not None and recipe.distillation else ()
        self.student = Student(recipe, arguments.categories, channels).to(arguments.device)
        if arguments.start:
            self.student.network.load_state_dict(_started(arguments.start), strict=False)
        self.student = self.student.to(memory_format=torch.channels_last)
        self.optimiser = torch.optim.AdamW(
            self.student.parameters(), lr=arguments.learning_rate, weight_decay=1e-4
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser, arguments.learning_rate, total_steps=arguments.steps + 1, pct_start=0.1
        )
        self._learn: Any = torch.compile(self.student) if arguments.compile else self.student
        self.sums, self.count = torch.zeros(3, device=arguments.device), 0

    def step(self, images: Tensor, categories: Tensor, targets: list[Tensor]) -> None:
        """Learn from one batch."""
        logits, adapted = self._learn(images)
        entropy = F.cross_entropy(logits, categories, label_smoothing=0.1)
        distance = _distance(adapted, targets) if adapted else torch.zeros((), device=images.device)
        self.optimiser.zero_grad()
        loss: Tensor = self.recipe.labels * entropy + self.recipe.distillation * distance
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.student.parameters(), 5.0)
        self.optimiser.step()
        self.schedule.step()
        accuracy = (logits.argmax(1) == categories).float().mean()
        self.sums += torch.stack([figure.detach() for figure in (entropy, distance, accuracy)])
        self.count += 1

    def report(self) -> str:
        """Means since the last report."""
        entropy, distance, accuracy = (self.sums / max(self.count, 1)).tolist()
        self.sums, self.count = torch.zeros_like(self.sums), 0
        return (
            f"{self.recipe.name}: cross-entropy {entropy:.3f}, distillation {distance:.3f}, "
            f"accuracy {accuracy:.3f}"
        )


def train(arguments: argparse.Namespace) -> Path:
    """Run the recipe, or all compared ones on the same images; returns the folder of the checkpoints."""
    torch.set_num_threads(arguments.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    data = FormulaTextures(
        arguments.steps * arguments.batch, arguments.categories, arguments.drawn, arguments.seed
    )
    loader = DataLoader(
        data, arguments.batch, num_workers=arguments.workers, pin_memory=arguments.device == "cuda"
    )
    teacher = Teacher(arguments.teacher).to(arguments.device) if arguments.teacher else None
    courses = [Course(recipe, arguments, teacher) for recipe in _recipes(arguments, teacher)]
    watch: Any = torch.compile(teacher) if arguments.compile and teacher is not None else teacher
    generator = torch.Generator(arguments.device).manual_seed(arguments.seed)
    started = time.perf_counter()
    for step, (pixels, categories) in enumerate(loader, start=1):
        drawn = pixels.to(arguments.device, non_blocking=True).float() / 255
        images = views(drawn, arguments.views, arguments.size, generator)
        images = images.contiguous(memory_format=torch.channels_last)
        labels = categories.to(arguments.device).repeat(arguments.views)
        plain, whitened = watch(images) if watch is not None else ([], [])
        for course in courses:
            course.step(images, labels, whitened if course.recipe.whitened else plain)
        if step % 200 == 0 or step == arguments.steps:
            seconds = time.perf_counter() - started
            print(f"step {step} of {arguments.steps}, {seconds:.0f} s", flush=True)
            for course in courses:
                print("  " + course.report(), flush=True)
        if step % 500 == 0 or step == arguments.steps:
            for course in courses:
                save(course, arguments, step)
    return Path(arguments.out)


def _recipes(arguments: argparse.Namespace, teacher: Teacher | None) -> list[Recipe]:
    recipes = {recipe.name: recipe for recipe in COMPARED}
    chosen = [recipes[name] for name in arguments.recipes]
    if teacher is None and any(recipe.distillation for recipe in chosen):
        raise SystemExit("distillation needs --teacher; without one choose --recipes labels")
    return chosen


def _started(checkpoint: Path) -> dict[str, Tensor]:
    """Weights of an earlier student of the same width, in single precision; the head starts anew."""
    return {name: tensor.float() for name, tensor in load_file(checkpoint).items()}


def _distance(adapted: list[Tensor], targets: list[Tensor]) -> Tensor:
    """Mean squared distance to the teacher's standardised features, averaged over layers."""
    pairs = zip(adapted, targets, strict=True)
    return torch.stack([F.mse_loss(mine, theirs) for mine, theirs in pairs]).mean()


def save(course: Course, arguments: argparse.Namespace, step: int) -> None:
    """Write the backbone without its head, in half precision, with a card that names the recipe."""
    weights = {
        name: tensor.detach().cpu().half().contiguous() if tensor.is_floating_point() else tensor.cpu()
        for name, tensor in course.student.network.state_dict().items()
        if not name.startswith("fc.") and not name.endswith("num_batches_tracked")
    }
    out = Path(arguments.out) / f"novad-bcos-{course.recipe.name}.safetensors"
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, out, metadata={"novad": ARCHITECTURE})
    kept = {"batch", "categories", "compile", "drawn", "learning_rate", "seed", "size", "steps", "views"}
    recipe = {key: value for key, value in vars(arguments).items() if key in kept}
    digest = hashlib.sha256(Path(arguments.teacher).read_bytes()).hexdigest() if arguments.teacher else None
    started = hashlib.sha256(Path(arguments.start).read_bytes()).hexdigest() if arguments.start else None
    card = {
        "architecture": ARCHITECTURE,
        "sha256": hashlib.sha256(out.read_bytes()).hexdigest(),
        "parameters": sum(parameter.numel() for parameter in weights.values()),
        "recipe": {**recipe, **asdict(course.recipe), "step": step},
        "start_sha256": started,
        "teacher_sha256": digest,
    }
    out.with_suffix(".json").write_text(json.dumps(card, indent=2, sort_keys=True) + "\n", "utf-8")


def main() -> None:
    """Parse the command line and run the recipe."""
    parser = argparse.ArgumentParser(prog="python -m novad.pretraining", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("weights"), help="folder of the checkpoints")
    parser.add_argument("--teacher", type=Path, help="local MobileNetV2 checkpoint")
    parser.add_argument("--start", type=Path, help="go on from this checkpoint of an earlier run")
    parser.add_argument(
        "--recipes",
        nargs="+",
        default=[DEFAULT.name],
        choices=[recipe.name for recipe in COMPARED],
        help="students, all trained on the same images",
    )
    parser.add_argument("--steps", type=int, default=7000)
    parser.add_argument("--batch", type=int, default=24, help="drawn images per step")
    parser.add_argument("--views", type=int, default=2, help="views of each drawn image in its step")
    parser.add_argument("--drawn", type=int, default=160, help="side of a drawn image in pixels")
    parser.add_argument("--size", type=int, default=128, help="side of a view in pixels")
    parser.add_argument("--categories", type=int, default=1024)
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--compile", action="store_true", help="let torch compile the step (needs a C++ compiler)"
    )
    train(parser.parse_args())
