"""The files of docs/deploy, by the validators of the tools that read them."""

import subprocess
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


def test_the_slurm_script_is_valid_bash() -> None:
    assert subprocess.run(["bash", "-n", DEPLOY / "slurm.sh"], capture_output=True, text=True).stderr == ""
