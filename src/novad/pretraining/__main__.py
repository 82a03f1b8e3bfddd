"""``python -m novad.pretraining``."""

from novad.pretraining.train import main

main()
