"""``python -m novad.images.demo OUT``: write the demo lines."""

import sys
from pathlib import Path

from novad.images.demo import make_demo_lines

if len(sys.argv) != 2:
    sys.exit("usage: python -m novad.images.demo OUT")
make_demo_lines(Path(sys.argv[1]))
