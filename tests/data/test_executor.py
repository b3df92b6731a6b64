"""Results come in order, whoever works; a worker that dies costs one item."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from lapcvae.config import parse
from lapcvae.data.executor import Executor, ExecutorConfig, open_executor
from lapcvae.errors import ConfigError
from tests.data.workers import fail, minus_one, square


def test_an_item_that_kills_its_worker_costs_only_itself() -> None:
    with open_executor(ExecutorConfig("processes", 2)) as executor:
        found = list(executor.run(square, range(80), 4, minus_one))
        again = list(executor.run(square, range(1, 30), 4, minus_one))
    assert found == [-1 if i in (37, 74) else i * i for i in range(80)]
    assert again == [i * i for i in range(1, 30)]


def test_an_error_of_the_function_is_raised_here() -> None:
    with (
        open_executor(ExecutorConfig("processes", 2)) as executor,
        pytest.raises(ValueError, match="five"),
    ):
        list(executor.run(fail, range(20), 2, minus_one))


def test_one_worker_is_this_process() -> None:
    with open_executor(ExecutorConfig("processes", 1)) as executor:
        assert list(executor.run(lambda i: i + 1, range(5), 2, minus_one)) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("items", "workers", "chunk"), [(4096, 2, 256), (400, 2, 25), (4096, 64, 8), (5, 8, 1), (0, 2, 1)]
)
def test_known_work_is_handed_out_in_enough_pieces_for_all(items: int, workers: int, chunk: int) -> None:
    with Executor(workers) as executor:
        assert executor.chunk(items) == chunk


def test_items_are_taken_as_they_are_needed() -> None:
    taken: list[int] = []

    def items():  # type: ignore[no-untyped-def]
        for i in range(8000):
            taken.append(i)
            yield i * 37 + 1

    with open_executor(ExecutorConfig("processes", 2)) as executor:
        results = executor.run(square, items(), 5, minus_one)
        assert next(results) == 1
        assert len(taken) <= 2 * 16 * 5
        results.close()


@pytest.mark.parametrize(
    "bad", [{"kind": "threads", "workers": 0}, {"kind": "dask", "workers": 0}, {"kind": "processes", "workers": -1}]
)
def test_bad_settings_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        parse(ExecutorConfig, bad, "executor")


def test_workers_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    script = """
import sys
from lapcvae.data.executor import Executor, ExecutorConfig, open_executor
from tests.data.workers import minus_one, name_process
if __name__ == "__main__":
    with open_executor(ExecutorConfig("processes", 2)) as executor:
        for found in executor.run(name_process, range(100_000), 1, minus_one):
            print(found, flush=True)
"""
    (tmp_path / "parent.py").write_text(script)
    top = Path(__file__).parents[2]
    parent = subprocess.Popen(
        [sys.executable, tmp_path / "parent.py"],
        env={**os.environ, "PYTHONPATH": str(top)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    workers = {psutil.Process(int(parent.stdout.readline())) for _ in range(30)}
    parent.kill()
    parent.stdout.close()
    parent.wait(timeout=30)
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive


def test_workers_that_cannot_begin_are_no_fault_of_the_items(tmp_path: Path) -> None:
    """A program that begins work on being imported, as each worker imports it."""
    script = """
from lapcvae.data.executor import ExecutorConfig, open_executor
from tests.data.workers import minus_one, square
with open_executor(ExecutorConfig("processes", 2)) as executor:
    print(list(executor.run(square, range(1, 9), 1, minus_one)))
"""
    (tmp_path / "unguarded.py").write_text(script)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    found = subprocess.run(
        [sys.executable, tmp_path / "unguarded.py"], env=environment, capture_output=True, text=True, timeout=120
    )
    assert found.returncode == 1
    assert found.stdout == ""
    assert "ConfigError: worker processes end as soon as they begin" in found.stderr
    assert 'under `if __name__ == "__main__":`' in found.stderr


@pytest.mark.skipif(os.name != "posix", reason="processes are copied on POSIX systems only")
@pytest.mark.parametrize("start", ["head_start('tests.data.workers')", "None"])
def test_workers_are_copies_of_a_process_that_has_imported_what_they_need(tmp_path: Path, start: str) -> None:
    script = f"""
from lapcvae.data.executor import ExecutorConfig, head_start, open_executor
if __name__ == "__main__":
    {start}
    from tests.data.workers import imported_for_itself, minus_one
    with open_executor(ExecutorConfig("processes", 2)) as executor:
        print(any(executor.run(imported_for_itself, range(40), 1, minus_one)))
"""
    (tmp_path / "program.py").write_text(script)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, tmp_path / "program.py"]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"
