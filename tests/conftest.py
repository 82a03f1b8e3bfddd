"""What every test may rely on."""

pytest_plugins = ["tracking_fixtures"]
