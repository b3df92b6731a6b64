"""The manifest is guarded: a good one passes, each kind of breach stops and says which photographs."""

from __future__ import annotations

import json
import re
import resource
import tempfile
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lapcvae.config import load
from lapcvae.data.expectations import Finding, Range, ValidateConfig, examine
from lapcvae.data.manifest import ManifestWriter, Row
from lapcvae.data.manifest_table import manifest_table
from lapcvae.data.split import SplitConfig, split_of
from lapcvae.data.summary import accept, read_reference, summarise
from lapcvae.data.validation import ValidationFiles, validate
from lapcvae.errors import DataError, ExpectationError, StorageError
from tests.data.flow import PARAMS

SPLIT = load(SplitConfig, "split", PARAMS)


def good_rows(count: int = 300) -> list[Row]:
    """Rows like those of real faces."""
    return [
        Row(
            name=f"lfw/Person_{i}/{i}.jpg",
            source="test",
            identity=f"Person_{i}",
            sha256=f"{i:064x}",
            status="accepted",
            row=i,
            split=split_of(f"Person_{i}", SPLIT),
            group=f"Person_{i}",
            pixels_sha256=f"{i:064x}",
            aligned_sha256=f"{i:064x}",
            phash=f"{i:064x}",
            width=250,
            height=250,
            faces=1,
            score=0.999,
            residual=0.08,
            rotation_deg=1.0,
            eye_distance_px=42.0,
            sharpness=300.0,
            brightness=110.0,
            contrast=50.0,
            aligned_sharpness=900.0,
        )
        for i in range(count)
    ]


def written(rows: list[Row], folder: Path) -> Path:
    """A manifest of `rows`; returns where."""
    with ManifestWriter(folder / "manifest.csv") as manifest:
        manifest.write(rows)
    return folder / "manifest.csv"


def summary_of(rows: list[Row], folder: Path, reference: dict[str, Any] | None = None) -> dict[str, Any]:
    with manifest_table(written(rows, folder)) as table:
        return summarise(table, SPLIT, reference)


def findings_of(rows: list[Row], folder: Path, change: str = "") -> list[Finding]:
    """Of a manifest of `rows`, whose table was changed by some SQL."""
    with manifest_table(written(rows, folder)) as table:
        totals = summarise(table, SPLIT)["totals"]
        table.db.executescript(change)
        return examine(table, totals, load(ValidateConfig, "validate", PARAMS))


def run(rows: list[Row], folder: Path, config: ValidateConfig | None = None) -> Path:
    """Validate a manifest of `rows`; returns the report's path."""
    manifest = written(rows, folder)
    report = folder / "reports" / "validation.json"
    chosen = config or load(ValidateConfig, "validate", PARAMS)
    files = ValidationFiles(manifest, folder / "accepted.json", report, folder / "reports" / "docs")
    validate(files, chosen, SPLIT)
    return report


@pytest.mark.parametrize("source", ["celeba", "lfw"])
def test_what_celebas_makers_aligned_may_lie_far_from_the_template(source: str, tmp_path: Path) -> None:
    rows = [replace(row, source=source, residual=0.3 if row.row == 7 else row.residual) for row in good_rows()]
    if source == "celeba":
        assert json.loads(run(rows, tmp_path).read_bytes())["holds"] is True
        return
    with pytest.raises(ExpectationError, match=r"residual.*1 of 300 outside, such as 0.3\n    lfw/Person_7/7.jpg"):
        run(rows, tmp_path)


def test_good_photographs_pass_and_leave_a_report_without_times(tmp_path: Path) -> None:
    report = run(good_rows(), tmp_path)
    first = report.read_bytes()
    found = json.loads(first)
    assert found["holds"] is True
    assert found["summary"]["accepted"] == 300
    assert len(found["findings"]) > 15
    pages = list((tmp_path / "reports" / "docs").rglob("*.html"))
    assert len(pages) == 5
    for page in pages:  # readable without a network: nothing is fetched from anywhere
        text = page.read_text()
        assert not re.search(r"""(<script|<(link|img)[^>]*https?://|url\(["']?https?://)""", text), page
    index = (tmp_path / "reports" / "docs" / "index.html").read_text()
    assert f"{len(found['findings'])} expectations hold" in index
    assert all((tmp_path / "reports" / "docs" / link).is_file() for link in re.findall(r'href="([^"]+)"', index))
    assert run(good_rows(), tmp_path).read_bytes() == first
    assert str(tmp_path).encode() not in first


BREACHES: tuple[tuple[str, dict[str, object]], ...] = (
    ("column='status'", {"status": "perhaps"}),
    ("column='split'", {"split": "exam"}),
    ("column='reason', value_set=[''], ", {"reason": "no_face"}),
    ("column='reason', value_set=['crashed'", {"status": "rejected", "reason": "did not like it"}),
    ("column='residual'", {"residual": 0.9}),
    ("column='eye_distance_px'", {"eye_distance_px": 2.0}),
    ("column='pixels_sha256'", {"pixels_sha256": f"{299:064x}"}),
    ("column='sha256_whole'", {"sha256": "not a digest"}),
    ("column='row'", {"row": 298}),
    ("column='border_share'", {"border_share": 0.9}),
    ("column='group_splits'", {"group": "Person_297"}),
    ("column='near_splits'", {"near": "a pair"}),
)


def test_every_breach_is_found_and_named(tmp_path: Path) -> None:
    rows = good_rows()
    test_rows = iter([i for i, row in enumerate(rows) if row.split == "test"])
    where = [next(test_rows) if {"group", "near"} & set(values) else i for i, (_, values) in enumerate(BREACHES)]
    rows[297] = replace(rows[297], split="train", near="a pair")
    for i, (_, values) in zip(where, BREACHES, strict=True):
        rows[i] = replace(rows[i], **values)  # type: ignore[arg-type]
    findings = findings_of(rows, tmp_path)
    for i, (says, _) in zip(where, BREACHES, strict=True):
        (finding,) = [f for f in findings if says in f"{f.expectation}, " and not f.holds]
        assert rows[i].name in finding.examples, finding
    broken = [f.expectation for f in findings if not f.holds]
    assert len(broken) == len(BREACHES) + 1, broken  # and `unaccounted`, for the status nobody knows


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("ALTER TABLE photographs DROP COLUMN faces", "columns_to_match_set"),
        ("ALTER TABLE photographs ADD COLUMN beauty INTEGER", "columns_to_match_set"),
        (
            "ALTER TABLE photographs DROP COLUMN width; ALTER TABLE photographs ADD COLUMN width REAL",
            "column='width', type_='INTEGER'",
        ),
    ],
)
def test_a_table_of_another_schema_is_found(change: str, told: str, tmp_path: Path) -> None:
    broken = [f.expectation for f in findings_of(good_rows(), tmp_path, change) if not f.holds]
    assert any(told in one for one in broken), broken


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("eye_distance_px", "eyes", "its columns are not those of this version"),
        (",250,250,", ",wide,250,", "Person_0/0.jpg: cannot store TEXT value in INTEGER column photographs.width"),
        (",250,250,", ",250.5,250,", "Person_0/0.jpg: cannot store REAL value in INTEGER column photographs.width"),
        (",0.08,", ",nan,", "Person_0/0.jpg: cannot store TEXT value in REAL column photographs.residual"),
        (",250,250,", ",250,", "Person_0/0.jpg: Incorrect number of bindings"),
    ],
)
def test_a_manifest_of_another_form_is_told(old: str, new: str, told: str, tmp_path: Path) -> None:
    manifest = written(good_rows(), tmp_path)
    manifest.write_text(manifest.read_text().replace(old, new, 1))
    with pytest.raises(DataError, match=re.escape(told)), manifest_table(manifest):
        pass


def test_a_disk_without_room_for_the_table_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    manifest = written(good_rows(), tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 14, hard))
    try:
        with pytest.raises(StorageError, match="set TMPDIR to a folder with some"), manifest_table(manifest):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == [manifest]


def test_the_temporary_folder_may_be_called_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = tmp_path / "a b?c%41#d"
    odd.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(odd))
    assert json.loads(run(good_rows(), tmp_path).read_bytes())["holds"] is True
    assert list(odd.iterdir()) == []


def test_memory_does_not_grow_with_the_photographs(tmp_path: Path) -> None:
    """What Python holds of them: SQLite holds two megabytes of any table."""
    few, many = (_python_peak(good_rows(count), tmp_path / str(count)) for count in (500, 5000))
    assert many < few + 200_000, (few, many)


def _python_peak(rows: list[Row], folder: Path) -> int:
    folder.mkdir()
    manifest = written(rows, folder)
    tracemalloc.start()
    try:
        with manifest_table(manifest) as table:
            summarise(table, SPLIT)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_share_of_rejects_says_which_photographs(tmp_path: Path) -> None:
    rows = good_rows()
    for i in range(60):
        rows[i] = replace(rows[i], status="rejected", reason="no_face" if i else "crashed", row=-1, split="")
    with pytest.raises(ExpectationError) as breach:
        run(rows, tmp_path)
    assert "column='reject_share'" in str(breach.value)
    assert "lfw/Person_0/0.jpg (crashed)" in str(breach.value)
    assert "lfw/Person_1/1.jpg (no_face)" in str(breach.value)
    limits = ValidateConfig({}, {"share_crashed": Range(0, 0.001)})
    with pytest.raises(ExpectationError) as breach:
        run(rows, tmp_path, limits)
    assert "lfw/Person_0/0.jpg (crashed)" in str(breach.value)
    assert "no_face" not in str(breach.value)


def test_a_breach_stops_says_which_and_leaves_no_report(tmp_path: Path) -> None:
    run(good_rows(), tmp_path)
    rows = good_rows()
    rows[7] = replace(rows[7], residual=0.9)
    with pytest.raises(ExpectationError) as breach:
        run(rows, tmp_path)
    assert "column='residual'" in str(breach.value)
    assert "lfw/Person_7/7.jpg" in str(breach.value)
    assert breach.value.exit_code == 2
    assert not (tmp_path / "reports" / "validation.json").exists()
    assert json.loads((tmp_path / "reports" / "validation.breach.json").read_text())["holds"] is False


def broken_in(rows: list[Row], folder: Path) -> list[str]:
    return [f.expectation.split("column='")[1].split("'")[0] for f in findings_of(rows, folder) if not f.holds]


def test_a_few_dark_ones_are_borne_and_many_are_not(tmp_path: Path) -> None:
    assert broken_in([replace(r, brightness=3.0) if r.row < 2 else r for r in good_rows()], tmp_path) == []
    assert broken_in([replace(r, brightness=3.0) if r.row < 30 else r for r in good_rows()], tmp_path) == ["brightness"]


def test_rejects_and_splits_are_limited(tmp_path: Path) -> None:
    rows = [replace(r, status="rejected", reason="no_face", row=-1, split="") if r.row < 60 else r for r in good_rows()]
    assert broken_in(rows, tmp_path) == ["reject_share"]
    assert broken_in([replace(r, split="train") for r in good_rows()], tmp_path) == ["split_error"]
    rows = [replace(r, status="rejected", reason="no_face", row=-1, split="") for r in good_rows(5)]
    assert broken_in(rows, tmp_path) == ["accepted", "reject_share", "split_error"]


@pytest.mark.parametrize("column", ["beauty", "split", "sha256_whole"])
def test_a_limit_on_what_is_no_column_of_numbers_is_told(tmp_path: Path, column: str) -> None:
    with pytest.raises(DataError, match=f"limits `{column}`, which is none of its figures: row, "):
        run(good_rows(), tmp_path, ValidateConfig({column: Range(0, 1)}, {}))


def test_what_could_not_be_examined_is_told_as_such(tmp_path: Path) -> None:
    found = findings_of(good_rows(), tmp_path, "ALTER TABLE photographs DROP COLUMN row")
    (finding,) = [f for f in found if "unique(column='row'" in f.expectation]
    assert not finding.holds
    assert finding.observed.startswith("could not be examined: ")
    assert '"row"' in finding.observed


def test_system_files_do_not_count_as_rejects(tmp_path: Path) -> None:
    rows = good_rows(10) + [Row(f"{i}/.DS_Store", "test", "", "", "rejected", "system_file") for i in range(90)]
    summary = summary_of(rows, tmp_path)
    assert summary["totals"]["reject_share"] == 0
    assert summary["rejected"] == {"system_file": 90}


def test_a_data_set_is_compared_with_the_last_accepted_one(tmp_path: Path) -> None:
    report = run(good_rows(), tmp_path)
    assert accept(report, tmp_path / "accepted.json") == "test"
    reference = read_reference(tmp_path / "accepted.json")

    def totals(rows: list[Row]) -> dict[str, float]:
        found: dict[str, float] = summary_of(rows, tmp_path, reference)["totals"]
        return found

    assert (totals(good_rows())["median_change"], totals(good_rows())["share_lost"]) == (0, 0)
    assert totals(good_rows(270))["share_lost"] == pytest.approx(0.1)
    assert totals([replace(r, brightness=140.0) for r in good_rows()])["median_change"] > 1
    assert totals([replace(r, source="other", brightness=140.0) for r in good_rows()])["median_change"] == 0
    with pytest.raises(ExpectationError, match="share_lost"):
        run(good_rows(270), tmp_path)


def test_figures_that_are_not_whole_are_told(tmp_path: Path) -> None:
    for text in ("{}", "[", '{"source": "x", "accepted": 1, "median": 1, "spread": {}}'):
        (tmp_path / "accepted.json").write_text(text)
        with pytest.raises(DataError, match="accept-data"):
            read_reference(tmp_path / "accepted.json")
    with pytest.raises(DataError, match="only a data set that passes"):
        accept(tmp_path / "none.json", tmp_path / "accepted.json")
