"""What every test may rely on."""

from novad.garbage import spare_search

# As the command does: libraries are loaded in a fifth less time.
spare_search()

pytest_plugins = ["image_folders", "tiny_pipeline", "tracking_fixtures", "verified_line"]
