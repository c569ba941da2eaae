"""`curation.run` as a process of its own, on a cluster: `python -m tests.curation.driver MODULE ADDRESS ARGUMENTS...`.

The module's `install` registers its engines in this process and in the cluster's workers.
"""

from __future__ import annotations

import importlib
import logging
import sys

import ray

from curation import ray_runner
from curation.run import main
from tests.curation import fakes


def drive(module: str, address: str, arguments: list[str]) -> int:
    """Run on the cluster at the address and return the exit code."""
    importlib.import_module(module).install()
    ray_runner.REPLAN_S = 1.0
    hook = {**fakes.RUNTIME_ENV, "worker_process_setup_hook": f"{module}.install"}
    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, runtime_env=hook)
    return main(arguments)


if __name__ == "__main__":
    sys.exit(drive(sys.argv[1], sys.argv[2], sys.argv[3:]))
