"""anomalib's methods on images that novad names; run by the interpreter of an environment that has anomalib.

Usage: python anomalib_methods.py REQUEST.json

The request names the method, the images to learn from and to judge, the size, the weights and the seed (see
``novad.benchmarking.anomalib_runs``). Into the folder that it names go ``scores.npz`` (the image scores, in
the order of the request), ``maps.npy`` (N, size, size) where maps are asked for, and ``result.json`` with the
cost. This file imports nothing of novad: the two environments need not share a package. It downloads nothing.
"""

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

BATCH = 8
PADIM_FEATURES = 100  # what anomalib takes for resnet18; it has no default for other networks
EFFICIENTAD_LEAST_SIZE = 256  # its autoencoder ends in a kernel that smaller images do not fill
EFFICIENTAD_LEARNING_RATE, EFFICIENTAD_DECAY = 1e-4, 1e-5

Request = dict[str, Any]


def main(path: str) -> None:
    """Fit one method, judge the images, write what was found and what it took."""
    request: Request = json.loads(Path(path).read_text("utf-8"))
    if request["method"] == "efficientad":
        request["size"] = [max(side, EFFICIENTAD_LEAST_SIZE) for side in request["size"]]
    torch.manual_seed(request["seed"])
    import_module("anomalib.models")  # its time is no part of the fit
    out, loaded_mb, started = Path(request["out"]), _peak_mb(), time.perf_counter()
    judge = METHODS[request["method"]](request)
    fit_seconds = time.perf_counter() - started
    next(_judged(judge, request, request["judged"][:BATCH]))  # warm
    scores, seconds = _judge_all(judge, request, out)
    np.savez(out / "scores.npz", scores=scores)
    result = {
        "fit_seconds": round(fit_seconds, 2),
        "ms_per_image": round(1000 * seconds, 2),
        "size": request["size"],
        "peak_rss_mb": _peak_mb(),
        "libraries_rss_mb": loaded_mb,
        "threads": torch.get_num_threads(),
        "versions": {name: metadata.version(name) for name in ("anomalib", "torch", "timm")},
    }
    (out / "result.json").write_text(json.dumps(result) + "\n", "utf-8")


Judge = Callable[[Tensor], Any]


def _judge_all(judge: Judge, request: Request, out: Path) -> tuple[np.ndarray, float]:
    """Scores of all images, and the seconds per image from file to score and map.

    The seconds are the median over the batches, as novad's own: what else the machine does moves it little.
    """
    size, files = request["size"], request["judged"]
    maps = None
    if request["maps"]:
        shape = (len(files), *size)
        maps = np.lib.format.open_memmap(out / "maps.npy", mode="w+", dtype=np.float32, shape=shape)
    scores: list[float] = []
    seconds, started = [], time.perf_counter()
    for found in _judged(judge, request, files):
        values = found.pred_score.reshape(-1).double().tolist()
        seconds.append((time.perf_counter() - started) / len(values))
        if maps is not None:
            maps[len(scores) : len(scores) + len(values)] = found.anomaly_map.reshape(-1, *size).numpy()
        scores += values
        started = time.perf_counter()
    return np.array(scores), float(np.median(seconds))


def _judged(judge: Judge, request: Request, files: Sequence[str]) -> Iterator[Any]:
    with torch.inference_mode():
        for batch in batches(files, request["size"]):
            yield judge(batch)


def patchcore(request: Request) -> Judge:
    """PatchCore (Roth et al. 2022), anomalib's defaults but the network."""
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    weights = request["weights"]
    model = PatchcoreModel(layers=weights["layers"], backbone=weights["architecture"], pre_trained=False)
    encode = give_weights(model.feature_extractor, weights)
    model.train()
    _show(model, encode, request)
    model.subsample_embedding(request["coreset_share"])
    model.eval()
    return lambda images: model(encode(images))


def padim(request: Request) -> Judge:
    """PaDiM (Defard et al. 2021) with as many features as anomalib takes for its smallest network."""
    from anomalib.models.image.padim.torch_model import PadimModel

    weights = request["weights"]
    probe: Any = timm.create_model(weights["architecture"], features_only=True).feature_info
    channels = dict(zip(probe.module_name(), probe.channels(), strict=True))
    features = min(PADIM_FEATURES, sum(channels[layer] for layer in weights["layers"]))
    layers = list(weights["layers"])
    model = PadimModel(weights["architecture"], layers, pre_trained=False, n_features=features)
    encode = give_weights(model.feature_extractor, weights)
    model.train()
    _show(model, encode, request)
    model.fit()
    model.eval()
    return lambda images: model(encode(images))


def dfm(request: Request) -> Judge:
    """DFM (Ahuja et al. 2019) by reconstruction error, anomalib's defaults, on the deepest of the layers."""
    from anomalib.models.image.dfm.torch_model import DFMModel

    weights = {**request["weights"], "layers": request["weights"]["layers"][-1:]}
    model = DFMModel(backbone=weights["architecture"], layer=weights["layers"][0], pre_trained=False)
    encode = give_weights(model.feature_extractor, weights)
    model.train()
    _show(model, encode, request)
    model.fit()
    model.eval()
    return lambda images: model(encode(images))


def efficientad(request: Request) -> Judge:
    """EfficientAD-S (Batzner et al. 2024) with its own teacher, from local files."""
    from anomalib.models import EfficientAd
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms.v2 import CenterCrop, Compose, RandomGrayscale, Resize

    told, size = request["efficientad"], request["size"]
    module = EfficientAd(pre_processor=False, post_processor=False, evaluator=False, visualizer=False)
    model: Any = module.model
    model.teacher.load_state_dict(torch.load(told["teacher"], map_location="cpu", weights_only=True))
    # Every tenth image is not learnt from and gives the scale of the maps: anomalib's validation images.
    held_back = request["train"][::10]
    learnt: Any = [path for path in request["train"] if path not in set(held_back)]
    model.mean_std.update(module.teacher_channel_mean_std(_Batches(learnt, size)))
    crop = Compose([Resize([2 * side for side in size]), RandomGrayscale(p=0.3), CenterCrop(size), _tensor])
    others = _forever(DataLoader(ImageFolder(told["imagenette"], crop), batch_size=1, shuffle=True))
    trained = [*model.student.parameters(), *model.ae.parameters()]
    optimiser = torch.optim.Adam(trained, lr=EFFICIENTAD_LEARNING_RATE, weight_decay=EFFICIENTAD_DECAY)
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, max(1, int(0.95 * told["steps"])), 0.1)
    model.train()
    order = _forever(DataLoader(learnt, batch_size=1, shuffle=True))
    for _, (path,), (other, _label) in zip(range(told["steps"]), order, others, strict=False):
        optimiser.zero_grad()
        sum(model(batch=read(path, size)[None], batch_imagenet=other)).backward()
        optimiser.step()
        schedule.step()
    model.eval()
    model.quantiles.update(module.map_norm_quantiles(_Batches(held_back, size)))
    judge: Judge = model
    return judge


METHODS: dict[str, Callable[[Request], Judge]] = {
    "patchcore": patchcore,
    "padim": padim,
    "dfm": dfm,
    "efficientad": efficientad,
}


def give_weights(extractor: nn.Module, weights: dict[str, Any]) -> Callable[[Tensor], Tensor]:
    """Put a local checkpoint into anomalib's feature extractor, and give the scaling of its input.

    The checkpoint must fit the whole network exactly (``strict``), and the features must all come from it.
    """
    checkpoint = weights["checkpoint"]
    with safe_open(checkpoint, framework="pt") as file:
        told = dict(file.metadata() or {})
    options = {"pad_type": told["pad_type"]} if "pad_type" in told else {}
    classes = int(told.get("num_classes", 1000))
    whole: Any = timm.create_model(weights["architecture"], num_classes=classes, **options)
    state = {name: tensor.float() for name, tensor in load_file(checkpoint).items()}
    counters = {name: each for name, each in whole.state_dict().items() if "num_batches_tracked" in name}
    whole.load_state_dict(counters | state, strict=True)
    info: Any = timm.create_model(weights["architecture"], features_only=True).feature_info
    names = info.module_name()
    places = [names.index(layer) for layer in weights["layers"]]
    network = timm.create_model(weights["architecture"], features_only=True, out_indices=places, **options)
    absent = network.load_state_dict(whole.state_dict(), strict=False).missing_keys
    if absent:
        raise ValueError(f"{checkpoint}: no weights for {absent[0]}")
    extractor.feature_extractor = network.requires_grad_(False).eval()
    mean = _per_channel(told.get("mean"), whole.pretrained_cfg.get("mean", 0.5))
    std = _per_channel(told.get("std"), whole.pretrained_cfg.get("std", 0.5))
    return lambda images: (images - mean) / std


def batches(files: Sequence[str], size: Sequence[int]) -> Iterator[Tensor]:
    """Images as (N, 3, height, width) in [0, 1], read when they are needed."""
    for start in range(0, len(files), BATCH):
        yield torch.stack([read(path, size) for path in files[start : start + BATCH]])


def read(path: str, size: Sequence[int]) -> Tensor:
    """One image (3, height, width) in [0, 1], decoded and scaled as novad does it."""
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode == "I" or image.mode.startswith("I;16"):
            grey = np.asarray(image).astype(np.float32) / 65_535
            pixels = np.repeat(grey[None], 3, axis=0)
        else:
            if image.has_transparency_data:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
            pixels = np.asarray(image.convert("RGB"), np.float32).transpose(2, 0, 1) / 255
    scaled = torch.from_numpy(np.ascontiguousarray(pixels))[None]
    if scaled.shape[-2:] != tuple(size):
        scaled = F.interpolate(scaled, tuple(size), mode="bilinear", antialias=True, align_corners=False)
    return scaled.clamp(0, 1)[0]


class _Batches:
    """Normal images in the shape that anomalib's own loops expect."""

    def __init__(self, files: Sequence[str], size: Sequence[int]) -> None:
        self.files, self.size = files, size

    def __len__(self) -> int:
        return -(-len(self.files) // BATCH)

    def __iter__(self) -> Iterator[Any]:
        from types import SimpleNamespace

        for images in batches(self.files, self.size):
            yield SimpleNamespace(image=images, gt_label=[0] * len(images))


def _show(model: nn.Module, encode: Callable[[Tensor], Tensor], request: Request) -> None:
    with torch.no_grad():
        for batch in batches(request["train"], request["size"]):
            model(encode(batch))


def _forever(loader: Any) -> Iterator[Any]:
    while True:
        yield from loader


def _tensor(image: Any) -> Tensor:
    return torch.from_numpy(np.asarray(image.convert("RGB"), np.float32).transpose(2, 0, 1) / 255)


def _peak_mb() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def _per_channel(own: str | None, default: float | Sequence[float]) -> Tensor:
    values = [float(part) for part in own.replace(",", " ").split()] if own is not None else default
    return torch.as_tensor(values, dtype=torch.float32).reshape(1, -1, 1, 1)


if __name__ == "__main__":
    main(sys.argv[1])
