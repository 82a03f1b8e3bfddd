"""What the scoring service costs beyond the same champion in this process, on the same images, in one run."""

import json
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import psutil
import torch

from benchmarks.inputs import Request, image_files
from benchmarks.report import MissingInput, Report
from novad.config import Workspace
from novad.config.settings import ValidateSettings
from novad.errors import ServiceError
from novad.images.decode import decode_bytes
from novad.tracking import champion_event, resolve
from novad.vision import Detector
from novad.vision.preprocess import to_batch

__all__ = ["measure"]

BATCH, CLIENTS = 8, 4
MAX_PIXELS = ValidateSettings().max_pixels
BATCHES = f"in this process: decoding and scoring in batches of {BATCH}"
FORWARD = "bare forward pass, image by image"


@dataclass(frozen=True)
class Taken:
    """Seconds of one round: of all images, and of each request where they were asked for one by one."""

    seconds: float
    each: Sequence[float] = ()
    processor: float = 0.0
    """Of the process that scores, without the clients."""


def measure(request: Request) -> Report:
    """Ask a service and this process for the same decisions in turn; ratios are medians over the rounds.

    Raises:
        MissingInput: no images, or no line that was trained here has a champion.
    """
    files = [path.read_bytes() for path in image_files(request, request.scored)]
    workspace = Workspace(request.artifacts.parent)
    line = _champion_line(workspace, request.artifacts)
    detector = resolve(workspace, line).load()
    with _served(workspace) as (service, client):
        actions = {**_in_process(detector, files), **_over_http(client, line, files)}
        processes = {name: psutil.Process(service.pid if _is_service(name) else None) for name in actions}
        for action in actions.values():
            action()
        rounds = [
            {name: _with_processor(action, processes[name]) for name, action in actions.items()}
            for _ in range(request.repeats)
        ]
        megabytes = {name: each.memory_info().rss / 1e6 for name, each in processes.items()}
    return Report(
        "The scoring service beside its champion in one process",
        {"line": line, "data": request.data.name, "rounds": request.repeats, "clients": CLIENTS},
        [_row(name, len(files), rounds, megabytes[name]) for name in actions],
    )


def _is_service(name: str) -> bool:
    return name.startswith("service")


def _with_processor(action: Callable[[], Taken], process: psutil.Process) -> Taken:
    before = process.cpu_times()
    taken = action()
    after = process.cpu_times()
    return replace(taken, processor=after.user + after.system - before.user - before.system)


def _champion_line(workspace: Workspace, artifacts: Path) -> str:
    """The trained line whose champion was decided on last."""
    lines = [path.parents[1].name for path in artifacts.glob("*/evaluate/detector")]
    events = [event for line in lines if (event := champion_event(workspace, line)) is not None]
    if not events:
        raise MissingInput(f"no line that was trained in {artifacts} has a champion; promote a version")
    return max(events, key=lambda event: event.at).line


def _row(name: str, images: int, rounds: list[dict[str, Taken]], megabytes: float) -> dict[str, Any]:
    def middle(ratio: Callable[[dict[str, Taken]], float]) -> float:
        return round(statistics.median(ratio(each) for each in rounds), 3)

    def quantile(round_: dict[str, Taken], percent: int) -> float:
        return _percentile(round_[name].each, percent) / _percentile(round_[FORWARD].each, 50)

    alone = bool(rounds[0][name].each)
    return {
        "what": name,
        "images": images,
        "throughput of batches": middle(lambda each: each[BATCHES].seconds / each[name].seconds),
        "processor time of batches": middle(lambda each: each[name].processor / each[BATCHES].processor),
        "p50 of bare p50": middle(lambda each: quantile(each, 50)) if alone else None,
        "p95 of bare p50": middle(lambda each: quantile(each, 95)) if alone else None,
        "memory MB": round(megabytes),
    }


def _percentile(values: Sequence[float], percent: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def _in_process(detector: Detector, files: list[bytes]) -> dict[str, Callable[[], Taken]]:
    images = [decode_bytes(data, "image", MAX_PIXELS) for data in files]
    tensors = [to_batch([image], detector.image_size) for image in images]
    backbone = detector.familiarity.backbone

    def batches() -> None:
        for _ in detector.score((decode_bytes(data, "image", MAX_PIXELS) for data in files), BATCH):
            pass

    def forward(batch: torch.Tensor) -> None:
        with torch.inference_mode():
            backbone(batch)

    def score(data: bytes) -> None:
        next(iter(detector.score([decode_bytes(data, "image", MAX_PIXELS)])))

    return {
        BATCHES: lambda: _whole(batches),
        FORWARD: lambda: _one_by_one(forward, tensors),
        "in this process: decoding and scoring, image by image": lambda: _one_by_one(score, files),
    }


def _over_http(client: httpx.Client, line: str, files: list[bytes]) -> dict[str, Callable[[], Taken]]:
    groups = [files[start : start + BATCH] for start in range(0, len(files), BATCH)]

    def ask(group: list[bytes]) -> None:
        form = [("images", ("image.png", data)) for data in group]
        client.post(f"/v1/lines/{line}/score", files=form).raise_for_status()

    def together(requests: list[list[bytes]]) -> Taken:
        with ThreadPoolExecutor(CLIENTS) as pool:
            return _whole(lambda: list(pool.map(ask, requests)))

    return {
        f"service: {CLIENTS} clients, requests of {BATCH} images": lambda: together(groups),
        f"service: {CLIENTS} clients, requests of one image": lambda: together([[each] for each in files]),
        "service: one client, image by image": lambda: _one_by_one(lambda data: ask([data]), files),
    }


def _whole(action: Callable[[], object]) -> Taken:
    started = time.perf_counter()
    action()
    return Taken(time.perf_counter() - started)


def _one_by_one(action: Callable[[Any], object], values: Sequence[Any]) -> Taken:
    each = [_whole(lambda value=value: action(value)).seconds for value in values]
    return Taken(sum(each), each)


@contextmanager
def _served(workspace: Workspace) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """`novad serve` of a copy of the workspace's records: a benchmark's decisions belong in no log."""
    with tempfile.TemporaryDirectory(prefix="novad-service-") as folder:
        copy = _with_own_log(workspace, Path(folder))
        environment = {
            **{name: value for name, value in os.environ.items() if name != "NOVAD_KEYS_FILE"},
            "NOVAD_WORKSPACE": str(copy),
            "OMP_NUM_THREADS": str(torch.get_num_threads()),
        }
        novad = [sys.executable, "-c", "from novad.cli import main; main()"]
        options = ["serve", "--port", "0", "--json"]
        with subprocess.Popen([*novad, *options], env=environment, stdout=subprocess.PIPE) as process:
            try:
                told = _told(process.stdout or ())
                key = {"X-API-Key": told["key"]}
                with httpx.Client(base_url=told["url"], headers=key, timeout=60) as client:
                    yield process, client
            finally:
                process.send_signal(signal.SIGTERM)


def _with_own_log(workspace: Workspace, copy: Path) -> Path:
    for original, links in ((workspace.root, copy), (workspace.state, copy / workspace.state.name)):
        links.mkdir(exist_ok=True)
        for path in original.iterdir():
            if path != workspace.state and path.name != "serve" and ".db" not in path.suffix:
                (links / path.name).symlink_to(path.resolve())
    for database in workspace.state.glob("*.db"):
        with (
            closing(sqlite3.connect(database)) as source,
            closing(sqlite3.connect(copy / workspace.state.name / database.name)) as target,
        ):
            source.backup(target)
    return copy


def _told(lines: Iterable[bytes]) -> dict[str, Any]:
    """The document that the service prints once it is ready."""
    text = b""
    for line in lines:
        text += line
        if line == b"}\n":
            break
    told: dict[str, Any] = json.loads(text or b"{}")
    if "url" not in told:
        raise ServiceError(f"the service did not start: {told.get('error')}")
    return told
