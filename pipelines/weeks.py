"""Three weeks of an operator's life, played in minutes on the embedded faces; ends in one HTML page.

    python -m pipelines.weeks

It works in a copy of the project with a registry, an inbox and a data set of its own; here only the page is written.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import yaml

from lapcvae.config import read_params
from lapcvae.data.manifest import read_manifest
from lapcvae.errors import PipelineError
from lapcvae.io.atomic import read_json, sha256_file, write_text
from pipelines.stage import run_stage

PAGE, SAMPLE = Path("reports/three_weeks.html"), Path("data/samples/lfw-sample.tgz")
_PARTS = (
    "src",
    "pipelines",
    "data/taken",
    "data/warm_start",
    "data/accepted.json",
    "dvc.yaml",
    "params.yaml",
    ".dvcignore",
    "prefect.toml",
)
# The project's own settings but for these: smaller networks, fewer steps, one baseline less.
SETTINGS: dict[str, Any] = {
    "source": {"kind": "folder", "path": "photographs"},
    "validate": {"totals": {"accepted": {"low": 20}, "split_error": {"high": 0.2}}},
    "model": {"width": 16},
    "training": {"batch": 32, "warmup_updates": 10},
    "levels": {"3": {"updates": 120}, "2": {"updates": 60}, "1": {"updates": 60}},
    "retrain": {"intake": {"quiet_s": 0}},
}
BASELINES: tuple[str, ...] = ()  # the gate does not ask them


@dataclass
class Step:
    """One step of the story, and what stood there after it."""

    title: str
    came: str
    seconds: float
    record: dict[str, Any]
    champion: int | None
    photographs: int
    data: str  # digest of the data set's manifest
    test: str  # digest of the frozen test set
    lines: list[str]
    pictures: dict[str, str] = field(default_factory=dict)
    trace: str = ""

    @property
    def batch_word(self) -> str:
        """Taken, set aside, or nothing."""
        return self.record["batch"]["status"] if self.record.get("batch") else ""

    @property
    def gate_word(self) -> str:
        """Promoted, rejected, or nothing."""
        return self.record["gate"]["decision"] if self.record.get("gate") else ""

    @property
    def word(self) -> str:
        """What the page calls the outcome."""
        return self.gate_word or self.batch_word or self.record.get("status", "")

    @property
    def colour(self) -> str:
        """Class of that word on the page."""
        return self.word.replace(" ", "")


class Story:
    """The copy of the project, and the steps so far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.steps: list[Step] = []

    def retrain(self, title: str, came: str) -> Step:
        """Run the flow as the schedule would, and note what stands there afterwards."""
        return self._note(title, came, [sys.executable, "-m", "pipelines.flows.retrain"])

    def rollback(self, title: str) -> Step:
        """The operator's one command."""
        return self._note(title, "an operator who does not like the new faces", [*_COMMAND, "rollback"])

    def _note(self, title: str, came: str, command: list[str]) -> Step:
        start = time.monotonic()
        record = self.folder / "reports/retraining.json"
        record.unlink(missing_ok=True)
        said = self._run(command)
        found = read_json(record) if record.exists() else _rolled_back(said)
        pictures = sorted((self.folder / "reports/gate").glob("*.png")) if found.get("gate") else []
        trace = self._run([*_COMMAND, "trace", "champion"], check=False)
        version = re.match(r"\S+ version (\d+)", trace)
        manifest = self.folder / "data/aligned/manifest.csv"
        step = Step(
            title, came, time.monotonic() - start, found, int(version[1]) if version else None,
            sum(row.status == "accepted" for row in read_manifest(manifest)), sha256_file(manifest),
            sha256_file(self.folder / "data/frozen_test.csv"), found["lines"],
            {path.stem: _address(path) for path in pictures}, trace if version else "",
        )  # fmt: skip
        self.steps.append(step)
        print(f"{title}: {step.word}; champion {step.champion}; {step.seconds:.0f} s", flush=True)
        return step

    def _run(self, command: list[str], check: bool = True) -> str:
        dropped = ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "DVC_ROOT", "LAPCVAE_PIPELINE_RUN")
        environment = {name: value for name, value in os.environ.items() if name not in dropped}
        paths = [str(self.folder), str(self.folder / "src"), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        if done.returncode and check:
            raise PipelineError(f"{' '.join(command[1:])} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}", 1)
        return done.stdout


_COMMAND = [sys.executable, "-m", "lapcvae.cli"]


def main() -> None:
    """Play the weeks and write the page."""
    parser = argparse.ArgumentParser(description="three weeks of retraining, played in minutes")
    parser.add_argument("--folder", type=Path, help="where to play; kept afterwards (default: a temporary folder)")
    parser.add_argument(
        "--settings", type=json.loads, default={}, help="JSON laid over the settings, for a shorter play"
    )
    parser.add_argument("--photographs", type=int, nargs=3, default=(420, 250, 60), help="of weeks 1, 2 and 3")
    given = parser.parse_args()

    def work() -> str:
        with tempfile.TemporaryDirectory() as scratch:
            folder = given.folder or Path(scratch, "project")
            steps, seconds = play(folder, given.settings, tuple(given.photographs))
            write_text(PAGE, render(steps, sum(given.photographs), seconds))
        broken = [line for line, holds in checks(steps) if not holds]
        if broken:
            raise PipelineError("; ".join(broken), 1)
        return f"{len(steps)} steps; see {PAGE}"

    run_stage("weeks", work)


def play(folder: Path, settings: dict[str, Any], photographs: tuple[int, ...]) -> tuple[list[Step], float]:
    """The whole story in `folder`; its steps, and the seconds it took."""
    start = time.monotonic()
    _make_project(folder, settings)
    faces = _faces(sum(photographs))
    first, second, third = (faces[sum(photographs[:i]) : sum(photographs[: i + 1])] for i in range(3))
    story, inbox = Story(folder), folder / "data/inbox"
    _put(first, folder / "photographs")
    story.retrain("Week 1: the first champion", f"{len(first)} photographs, no champion yet")
    _put(second, inbox)
    story.retrain("Week 2: good photographs", f"{len(second)} photographs in the inbox")
    params = read_params(folder / "params.yaml")
    for level in params["levels"].values():
        level["updates"] *= 2
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    story.retrain("Week 2, later: trained longer", "an experimenter doubled `updates`")
    _put([(name, _spoiled(data, i)) for i, (name, data) in enumerate(third)], inbox)
    story.retrain("Week 3: a bad batch", f"{len(third)} files, most of them damaged")
    if "previous" in _aliases(folder):
        story.rollback("Week 3, later: a rollback")
        story.retrain("Week 4: nothing new", "nothing")
    return story.steps, time.monotonic() - start


def checks(steps: list[Step]) -> list[tuple[str, bool]]:
    """What must hold, whatever the gate decided."""
    bad = next(i for i, step in enumerate(steps) if step.title.startswith("Week 3: "))
    found = [
        ("Week 1 ended with a champion", steps[0].champion is not None),
        ("The frozen test set never changed", len({step.test for step in steps}) == 1),
        ("There was a champion after every step", all(step.champion for step in steps)),
        ("Week 2 grew the data set", steps[1].photographs > steps[0].photographs),
        ("The bad batch was set aside whole", steps[bad].batch_word == "set aside"),
        ("The bad batch left the data set as it was, to the byte", steps[bad].data == steps[bad - 1].data),
        ("The bad batch left the champion where it was", steps[bad].champion == steps[bad - 1].champion),
    ]
    for before, step in itertools.pairwise(steps):
        if step.gate_word:
            wanted = (
                step.champion != before.champion if step.gate_word == "promoted" else step.champion == before.champion
            )
            found.append((f"{step.title}: {step.gate_word}, and the champion is accordingly", wanted))
    if len(steps) > bad + 1:
        back = steps[bad + 1]
        found.append(("The rollback brought another champion back", back.champion != steps[bad].champion))
        found.append(("The next run let the rollback stand", steps[-1].champion == back.champion))
    return found


def render(steps: list[Step], photographs: int, seconds: float) -> str:
    """The page: everything in one file, no network needed."""
    source = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(source)
    return template.render(steps=steps, checks=checks(steps), photographs=photographs, seconds=f"{seconds:.0f}")


def _make_project(folder: Path, settings: dict[str, Any]) -> None:
    folder.mkdir(parents=True)
    for part in _PARTS:
        target = folder / part
        target.parent.mkdir(parents=True, exist_ok=True)
        ignored = shutil.ignore_patterns("__pycache__", "*.tar", "*.dvc", "champion")
        shutil.copytree(part, target, ignore=ignored) if Path(part).is_dir() else shutil.copyfile(part, target)
    params = _overlay(_overlay(read_params(), SETTINGS), settings)
    params["baselines"] = {name: params["baselines"][name] for name in BASELINES}
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet", "--no-scm"], cwd=folder, check=True)


def _overlay(tree: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    for key, value in changes.items():
        tree[key] = _overlay(dict(tree.get(key, {})), value) if isinstance(value, dict) else value
    return tree


def _faces(count: int) -> list[tuple[str, bytes]]:
    """Name below the folder of photographs, and bytes, in an order that has nothing to do with names."""
    found = []
    with tarfile.open(SAMPLE) as tar:
        for member in tar:
            stream = tar.extractfile(member)
            if stream is not None:
                found.append((member.name.partition("/")[2], stream.read()))
    found.sort(key=lambda face: hashlib.sha256(face[0].encode()).digest())
    return found[:count]


def _put(faces: list[tuple[str, bytes]], folder: Path) -> None:
    for name, data in faces:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def _spoiled(data: bytes, i: int) -> bytes:
    """Three of four files are damaged, each in its own way: cut short, a web page, noise."""
    ways = (data, data[: len(data) // 3], b"<html>404 Not Found</html>", hashlib.sha512(data).digest() * 40)
    return ways[i % len(ways)]


def _aliases(folder: Path) -> set[str]:
    from lapcvae.registry.promotion import standing

    before = os.environ.get("MLFLOW_TRACKING_URI")
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder.resolve() / 'mlflow.db'}"
    try:
        now = standing(read_params(folder / "params.yaml")["tracking"]["model"])
    finally:
        if before is None:
            del os.environ["MLFLOW_TRACKING_URI"]
        else:
            os.environ["MLFLOW_TRACKING_URI"] = before
    return {name for name, version in vars(now).items() if version is not None}


def _rolled_back(said: str) -> dict[str, Any]:
    return {"status": "rolled back", "lines": said.splitlines(), "batch": None, "drift": None, "gate": None}


def _address(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


if __name__ == "__main__":
    main()
