"""anomalib's greedy coreset: ``python anomalib_coreset.py PATCHES.npy SHARE THREADS CHOSEN.json``.

Run by an interpreter that has anomalib; imports nothing of novad.
The array holds (n, d) features. Clocks start once it is read, so that they count what novad's count.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from anomalib.models.components.sampling import KCenterGreedy


def main(patches: str, share: str, threads: str, told: str) -> None:
    """Choose, and write which, with the seconds of clock and processor."""
    torch.set_num_threads(int(threads))
    torch.manual_seed(0)
    embedding = torch.from_numpy(np.load(patches)).float()
    clock, processor = time.perf_counter(), time.process_time()
    chosen = KCenterGreedy(embedding, float(share)).select_coreset_idxs()
    taken = {"seconds": time.perf_counter() - clock, "processor": time.process_time() - processor}
    Path(told).write_text(json.dumps({**taken, "chosen": chosen}), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
