"""What novad costs and what it finds, measured on real images: ``python -m benchmarks``."""
