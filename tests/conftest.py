"""What every test may rely on."""

pytest_plugins = ["image_folders", "tracking_fixtures"]
