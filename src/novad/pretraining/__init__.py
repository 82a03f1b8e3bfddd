"""Recipe of the bundled backbone: formula-driven supervision, no third-party image."""
