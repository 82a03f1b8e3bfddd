"""The core: what a network finds familiar, what its explanation leaves novel, and both in one decision."""
