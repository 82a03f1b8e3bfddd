"""What every test may rely on."""

pytest_plugins = ["image_folders", "tiny_pipeline", "tracking_fixtures", "verified_line"]
