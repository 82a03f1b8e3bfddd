"""What every test may rely on."""

import gc

# As the command does: libraries are loaded in a fifth less time.
gc.set_threshold(50_000, 20, 20)

pytest_plugins = ["image_folders", "tiny_pipeline", "tracking_fixtures", "verified_line"]
