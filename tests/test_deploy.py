"""The files of docs/deploy, by the validators of the tools that read them."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

DEPLOY = Path(__file__).parent.parent / "docs" / "deploy"
RAY_JOB_FIELDS = {"entrypoint", "shutdownAfterJobFinishes", "backoffLimit", "rayClusterSpec"}  # of rayjob_types.go


def read(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))


def test_the_cluster_launcher_accepts_its_file() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(read("ray-cluster.yaml"))
    validate_config(prepared)
    assert prepared["available_node_types"]["cpu"]["max_workers"] == 16
    with pytest.raises(Exception, match="'nodes' was unexpected"):
        validate_config(prepared | {"nodes": 3})


def test_kubernetes_accepts_the_pods_of_the_ray_job() -> None:
    import kubernetes_validate

    job = read("rayjob.yaml")
    assert (job["apiVersion"], job["kind"], set(job["spec"])) == ("ray.io/v1", "RayJob", RAY_JOB_FIELDS)
    cluster = job["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "any"}, **group["template"]}
        kubernetes_validate.validate(pod, "1.31", strict=True)
        pod["spec"]["containers"][0]["images"] = "x"
        with pytest.raises(kubernetes_validate.ValidationError, match="images"):
            kubernetes_validate.validate(pod, "1.31", strict=True)


@pytest.mark.parametrize(
    ("ray", "code", "said"),
    [
        ('while [ "$1" != -- ]; do shift; done; shift; exec "$@"', 2, "nowhere.yaml: cannot be read: No such file"),
        ("echo Failed to start Ray", 1, "Ray could not be started, nothing was run"),
        ("kill $PPID", 143, ""),  # the job is cancelled
    ],
)
def test_the_slurm_script_ends_as_the_run_does(tmp_path: Path, ray: str, code: int, said: str) -> None:
    """With stand-ins for Slurm's commands and Ray's, which ends with 0 when it cannot start."""
    calls = tmp_path / "calls"
    ray = f'echo "$1" >> {calls}; [ "$1" = stop ] && exit\n{ray}'
    for name, body in {"scontrol": "echo localhost", "srun": 'exec "$@"', "ray": ray}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    slurm = {"SLURM_JOB_NODELIST": "localhost", "SLURM_JOB_NUM_NODES": "1", "SLURM_CPUS_ON_NODE": "1"}
    command = ["bash", DEPLOY / "slurm.sh", str(tmp_path / "nowhere.yaml")]
    env = os.environ | slurm | {"PATH": path, "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == code
    assert said in done.stderr
    assert calls.read_text().split() == ["stop", "symmetric-run", "stop"]
