"""Where a model came from, and what came of a data set."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lapcvae.errors import RegistryError
from lapcvae.registry.store import open_client, told, tracking_uri

_DATA_STAGES = ("download", "landmarks", "align", "pyramid")


@dataclass(frozen=True)
class Lineage:
    """A version's way back. data: paths of data to DVC's digests, batches taken in included. runs: what trained each
    level or baseline. siblings: all versions made of the same data set.
    """

    name: str
    version: int
    aliases: tuple[str, ...]
    run_id: str
    git_commit: str
    git_dirty: bool
    data_digest: str
    params_digest: str
    report: str
    runs: dict[str, str]
    tags: dict[str, str]
    data: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)
    siblings: tuple[int, ...] = ()

    def text(self) -> str:
        """For people, one fact a line."""
        dirty = ", with uncommitted changes" if self.git_dirty else ""
        lines = [
            f"{self.name} version {self.version}" + (f" ({', '.join(self.aliases)})" if self.aliases else ""),
            f"  MLflow run    {self.run_id}",
            f"  git commit    {self.git_commit or 'none'}{dirty}",
            f"  data digest   {self.data_digest}",
            *(f"    {path:<28} {digest}" for path, digest in self.data.items()),
            f"  parameters    {self.params_digest} ({len(self.parameters)} of them on the run)",
            f"  report        {self.report}",
        ]
        lines += [f"  {name:<13} trained by run {run or 'that was not logged'}" for name, run in self.runs.items()]
        for key in ("warm_start", "gate", "gate_reason", "gate_against", "champion_because", "rolled_back"):
            if self.tags.get(key):
                lines.append(f"  {key.replace('_', ' '):<13} {self.tags[key]}")
        others = ", ".join(map(str, self.siblings)) or "none"
        lines.append(f"  other versions of the same data set: {others}")
        return "\n".join(lines)


def trace(name: str, version_or_alias: str) -> Lineage:
    """Follow a version back. Raises `RegistryError` where there is no such version or MLflow is away."""
    with told():
        client = open_client()
        if version_or_alias.isdigit():
            found = client.get_model_version(name, version_or_alias)
        else:
            found = client.get_model_version_by_alias(name, version_or_alias)
        tags = dict(found.tags)
        run_id = str(found.run_id)
        made = client.get_run(run_id)
        digest = tags.get("data_digest", "")
        siblings = tuple(v for v in made_of(name, digest) if v != int(found.version)) if digest else ()
        registered = client.get_registered_model(name)
        return Lineage(
            name=name,
            version=int(found.version),
            aliases=tuple(sorted(a for a, v in registered.aliases.items() if int(v) == int(found.version))),
            run_id=run_id,
            git_commit=tags.get("mlflow.source.git.commit", ""),
            git_dirty=tags.get("git_dirty") == "true",
            data_digest=digest,
            params_digest=tags.get("params_digest", ""),
            report=f"{made.info.artifact_uri}/reports/index.html",
            runs={key.removeprefix("run."): run for key, run in sorted(tags.items()) if key.startswith("run.")},
            tags=tags,
            data=_data(run_id),
            parameters=dict(made.data.params),
            siblings=siblings,
        )


def made_of(name: str, data_digest: str) -> list[int]:
    """The versions made of a data set, by its digest or its start. Raises `RegistryError` as `trace`."""
    if not data_digest or not all(c in "0123456789abcdef" for c in data_digest):
        raise RegistryError(
            f"`{data_digest}` is not a data digest; `lapcvae trace` and data/pyramid/pyramid.json show them"
        )
    with told():
        query = f"name = '{name}' and tags.data_digest LIKE '{data_digest}%'"
        return sorted(int(version.version) for version in open_client().search_model_versions(query))


def _data(run_id: str) -> dict[str, str]:
    """DVC's digests of the data, from the lock that was kept with the run: `dvc checkout` with it brings them back."""
    from mlflow.artifacts import download_artifacts

    client = open_client()
    if "lineage/dvc.lock" not in {file.path for file in client.list_artifacts(run_id, "lineage")}:
        return {}
    with tempfile.TemporaryDirectory() as scratch:
        path = download_artifacts(
            run_id=run_id, artifact_path="lineage/dvc.lock", dst_path=scratch, tracking_uri=tracking_uri()
        )
        lock: dict[str, Any] = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    found: dict[str, str] = {}
    for stage in _DATA_STAGES:
        entry = lock.get("stages", {}).get(stage, {})
        inputs = [dep for dep in entry.get("deps", []) if stage == "download" and not dep["path"].endswith(".py")]
        for file in [*inputs, *entry.get("outs", [])]:
            found[file["path"]] = file["md5"]
    return found
