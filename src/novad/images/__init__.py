"""Images of a product line: layouts, safe decoding, manifest, splits, the data gate, and demo lines.

Names are imported when they are asked for: who only decodes needs no pandas.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from novad.images.decode import decode_bytes, decode_image, decode_mask
    from novad.images.demo import make_demo_lines
    from novad.images.layouts import LAYOUTS, Sample, discover
    from novad.images.manifest import build_manifest, read_manifest, write_manifest
    from novad.images.splits import SPLITS, assign_sources, assign_splits, near_duplicate_pairs

__all__ = [
    "LAYOUTS",
    "SPLITS",
    "Sample",
    "assign_sources",
    "assign_splits",
    "build_manifest",
    "decode_bytes",
    "decode_image",
    "decode_mask",
    "discover",
    "make_demo_lines",
    "near_duplicate_pairs",
    "read_manifest",
    "write_manifest",
]

_MODULES = {
    "decode": ("decode_bytes", "decode_image", "decode_mask"),
    "demo": ("make_demo_lines",),
    "layouts": ("LAYOUTS", "Sample", "discover"),
    "manifest": ("build_manifest", "read_manifest", "write_manifest"),
    "splits": ("SPLITS", "assign_sources", "assign_splits", "near_duplicate_pairs"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
