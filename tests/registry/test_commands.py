"""`lapcvae rollback`, `promote` and `trace`, as an operator types them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lapcvae.registry import promotion, tracking
from lapcvae.registry.store import open_client
from tests.command_line import lapcvae


@pytest.fixture
def champions(make: Callable[[int], list[Path]]) -> None:
    """Version 2 is champion, version 1 was it before."""
    for version, digest in ((1, "aa11"), (2, "bb22")):
        make(version)
        promotion.promote("lapcvae", version, "better")
        for key, value in {"data_digest": digest * 16, "run.level1": f"run-of-{version}"}.items():
            open_client().set_model_version_tag("lapcvae", str(version), key, value)


def test_rollback_brings_the_previous_champion_back_in_one_command(champions: None) -> None:
    done = lapcvae("rollback")
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "lapcvae: version 1 is champion again; version 2 is not promoted again unless by `lapcvae promote`\n"
    )
    assert promotion.standing("lapcvae").champion == 1
    again = lapcvae("rollback")
    assert again.returncode == 1
    assert "there is no previous champion to bring back" in again.stderr
    assert promotion.standing("lapcvae").champion == 1


def test_promote_undoes_a_rollback(champions: None) -> None:
    lapcvae("rollback")
    assert lapcvae("promote", 2).stdout == "lapcvae: version 2 is champion\n"
    now = promotion.standing("lapcvae")
    assert (now.champion, now.previous) == (2, 1)
    assert promotion.tags_of("lapcvae", 2)[promotion.ROLLED_BACK] == ""
    assert lapcvae("promote", 2).stdout == "lapcvae: version 2 is champion already\n"
    assert lapcvae("promote", 9).returncode == 1


@pytest.mark.parametrize(
    "model", ["", "champion", "2", "lapcvae", "lapcvae@champion", "lapcvae/2", "models:/lapcvae@champion"]
)
def test_trace_knows_a_model_by_each_of_its_names(champions: None, model: str) -> None:
    done = lapcvae("trace", *filter(None, [model]))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("lapcvae version 2 (champion, current)\n")
    for fact in ("MLflow run", "git commit", f"data digest   {'bb22' * 16}", "parameters", "report", "run-of-2"):
        assert fact in done.stdout


def test_trace_leads_from_a_data_set_to_the_models_made_of_it(champions: None) -> None:
    assert lapcvae("trace", "--data", "aa1").stdout == "lapcvae version 1\n"
    assert lapcvae("trace", "--data", "bb22" * 16).stdout == "lapcvae version 2\n"
    none = lapcvae("trace", "--data", "cc33")
    assert (none.returncode, none.stdout) == (
        0,
        "no version of lapcvae was made of a data set whose digest begins so\n",
    )
    assert lapcvae("trace", "--data", "xyz").returncode == 1


def test_what_is_not_there_is_not_taken_for_a_registry_that_is_away(champions: None) -> None:
    done = lapcvae("trace", "lapcvae@best")
    assert done.returncode == 1
    assert "refuses: Registered model alias best not found" in done.stderr
    assert "once MLflow is back" not in done.stderr


def test_trace_shows_the_data_from_dvcs_lock(champions: None, project: Path) -> None:
    lock = {"stages": {"align": {"cmd": "x", "outs": [{"path": "data/aligned/images.npy", "md5": "d" * 32}]}}}
    (project / "dvc.lock").write_text(json.dumps(lock))
    tracking.keep_sources(str(open_client().get_model_version("lapcvae", "2").run_id), [Path("dvc.lock")])
    assert f"data/aligned/images.npy      {'d' * 32}" in lapcvae("trace").stdout
