"""Images of product lines: layouts, decoding, manifest, splits, validation, demo lines."""
