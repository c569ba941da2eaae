"""What a storm needs around it: a cluster of two nodes, an S3 server behind a proxy that can fail, and a small disk."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from moto.server import ThreadedMotoServer
from ray.cluster_utils import Cluster

from tests.faulty_s3 import CREDENTIALS, FaultyS3

DISK_MIB = 32
NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100 * 2**20}


@contextlib.contextmanager
def full(disk: Path) -> Iterator[None]:
    """No byte is left on the disk."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    yield
    ballast.unlink()


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """A disk of DISK_MIB MiB, None where this user may not mount one."""
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "storm", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        yield None
        return
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=False)


@contextlib.contextmanager
def weather(folder: Path) -> Iterator[tuple[Cluster, FaultyS3, Path | None]]:
    """A cluster of two nodes, an S3 server behind a proxy, and a small disk."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with small_disk(folder) as disk, FaultyS3(f"http://{host}:{port}") as s3:
        os.environ |= {**CREDENTIALS, "AWS_ENDPOINT_URL": s3.url, "RAY_USAGE_STATS_ENABLED": "0"}
        urllib.request.urlopen(urllib.request.Request(f"{s3.url}/bucket", method="PUT")).close()
        cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
        try:
            cluster.add_node(**NODE)
            yield cluster, s3, disk
        finally:
            cluster.shutdown()
    server.stop()
