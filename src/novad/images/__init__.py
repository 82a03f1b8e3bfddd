"""Images of a product line: layouts, safe decoding, manifest, splits, the data gate, and demo lines."""

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
