"""A worker's flow run as a process that ends with its worker: ``python -m novad.pipeline.flow_process``."""

import runpy

from novad.garbage import spare_search
from novad.orphans import end_with_parent

if __name__ == "__main__":
    # Prefect starts it; this is the first moment that is ours.
    end_with_parent()
    spare_search()
    runpy.run_module("prefect.engine", run_name="__main__")
