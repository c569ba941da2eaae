from pathlib import Path
from typing import Any

from curation.jobs import Job, given_up
from curation.tasks import Task
from tests.curation import made


def test_a_clip_given_up_before_its_first_stage_keeps_what_earlier_pools_measured(tmp_path: Path) -> None:
    known: dict[str, Any] = {"header": {"width": 1}, "decode": {}, "cut": {}}
    task = Task(made.clip("a.mp4"), known, new=dict(known))
    over = given_up(Job(task, deaths=2), "gone", made.config(tmp_path))
    assert over.over
    assert list(over.new) == ["header", "decode", "cut", "hash"]
    assert over.new["hash"]["error"] == "its worker was lost 2 times, the last time at hash: gone"
