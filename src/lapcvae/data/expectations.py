"""What the manifest must look like before anything is trained on it: a Great Expectations suite from `params.yaml`.

The only file that imports great_expectations, and only when it is used (the import takes seconds).
"""

from __future__ import annotations

import logging
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_any_real_numeric_dtype

from lapcvae.data.docs_pages import make_offline
from lapcvae.data.reasons import NOT_COUNTED, REASONS
from lapcvae.data.split import SPLITS
from lapcvae.data.summary import SCHEMA
from lapcvae.errors import DataError

_FORMAT = {"result_format": "SUMMARY", "unexpected_index_column_names": ["name"]}
_SCHEMA = ("expect_table_columns_to_match_set", "expect_column_values_to_be_of_type")
_SHOWN = 5  # photographs named for each breach


@dataclass(frozen=True)
class Range:
    """Limits on a column of the accepted photographs; all but `share_outside` of them must lie within."""

    low: float
    high: float
    share_outside: float = 0.0

    def __post_init__(self) -> None:
        if self.low > self.high or not 0 <= self.share_outside < 1:
            raise ValueError("low must not exceed high, and share_outside must be at least 0 and below 1")


@dataclass(frozen=True)
class ValidateConfig:
    """The `validate` section of params.yaml."""

    ranges: dict[str, Range]  # of columns of the manifest, over the accepted photographs
    totals: dict[str, Range]  # of the figures of `data.summary.summarise`


@dataclass(frozen=True)
class Finding:
    """The outcome of one expectation; `examples` are names of photographs that break it."""

    expectation: str
    holds: bool
    observed: str
    examples: tuple[str, ...]


def examine(
    table: pd.DataFrame, totals: dict[str, float], config: ValidateConfig, docs: Path | None = None
) -> list[Finding]:
    """Run both suites, on a manifest's table and on its totals; with `docs`, write Data Docs there (`index.html`)."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package warns about its own dependencies
        import great_expectations as gx
        from great_expectations.data_context.types.base import ProgressBarsConfig

        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = ProgressBarsConfig(globally=False)
        photographs = _with_group_splits(table)
        definitions = [
            _definition(gx, context, "photographs", _photographs(gx, photographs, config)),
            _definition(gx, context, "totals", _totals(gx, totals, config)),
        ]
        if docs is not None:
            _add_site(context, docs)
        frames = (photographs, pd.DataFrame([{"name": "all photographs", **totals}]))
        outcomes = []
        for definition, frame in zip(definitions, frames, strict=True):
            checkpoint = gx.Checkpoint(name=definition.name, validation_definitions=[definition], result_format=_FORMAT)
            run = context.checkpoints.add_or_update(checkpoint).run(batch_parameters={"dataframe": frame})
            outcomes += [(outcome, frame) for result in run.run_results.values() for outcome in result.results]
        if docs is not None:
            context.build_data_docs()
    found = (_finding(outcome, frame is not photographs, table) for outcome, frame in outcomes)
    findings = sorted(found, key=lambda finding: finding.expectation)
    if docs is not None:
        make_offline(docs, findings)
    return findings


def _with_group_splits(table: pd.DataFrame) -> pd.DataFrame:
    """Add how many splits the person and the group of near-duplicates of each photograph are found in."""
    accepted = table[table.status == "accepted"]
    columns = {"group_splits": "group", "near_splits": "near"}
    found = {name: table[of].map(accepted.groupby(of, observed=True).split.nunique()) for name, of in columns.items()}
    return table.assign(**{name: splits.fillna(0).astype(int) for name, splits in found.items()})


def _definition(gx: Any, context: Any, name: str, expectations: list[Any]) -> Any:
    source = context.data_sources.add_or_update_pandas(name)
    batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe(name)
    suite = context.suites.add_or_update(gx.ExpectationSuite(name, expectations=expectations))
    return context.validation_definitions.add_or_update(gx.ValidationDefinition(name=name, data=batch, suite=suite))


def _add_site(context: Any, docs: Path) -> None:
    docs.mkdir(parents=True, exist_ok=True)
    store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs.resolve())}
    index = {"class_name": "DefaultSiteIndexBuilder"}
    context.add_data_docs_site(
        "local", {"class_name": "SiteBuilder", "store_backend": store, "site_index_builder": index}
    )


def _photographs(gx: Any, table: pd.DataFrame, config: ValidateConfig) -> list[Any]:
    e = gx.expectations
    accepted = {"row_condition": 'status=="accepted"', "condition_parser": "pandas"}
    near = {"row_condition": 'status=="accepted" and near!=0', "condition_parser": "pandas"}
    rejected = {"row_condition": 'status=="rejected"', "condition_parser": "pandas"}
    checks = [
        e.ExpectTableColumnsToMatchSet(column_set=[*SCHEMA, "group_splits", "near_splits"], exact_match=True),
        *(
            e.ExpectColumnValuesToBeOfType(column=name, type_=f"{kind.__name__}64")
            for name, kind in SCHEMA.items()
            if kind in (int, float)
        ),
        e.ExpectColumnValuesToBeInSet(column="status", value_set=["accepted", "rejected"]),
        e.ExpectColumnValuesToBeInSet(column="split", value_set=list(SPLITS), **accepted),
        e.ExpectColumnValuesToBeInSet(column="reason", value_set=sorted(REASONS), **rejected),
        e.ExpectColumnValuesToBeInSet(column="reason", value_set=[""], **accepted),
        e.ExpectColumnValuesToBeInSet(column="sha256_whole", value_set=[True], **accepted),
        e.ExpectColumnValuesToBeUnique(column="row", **accepted),
        e.ExpectColumnValuesToBeUnique(column="pixels_sha256", **accepted),
        e.ExpectColumnValuesToBeInSet(column="group_splits", value_set=[1], **accepted),
        e.ExpectColumnValuesToBeInSet(column="near_splits", value_set=[1], **near),
    ]
    # What CelebA's makers aligned is taken as it is, faces in profile too, whose points lie far from the template's.
    fitted = accepted | {"row_condition": 'status=="accepted" and source!="celeba"'}
    conditions = {"residual": fitted}
    return checks + [
        _between(gx, column, limits, table, "ranges", **conditions.get(column, accepted))
        for column, limits in config.ranges.items()
    ]


def _totals(gx: Any, totals: dict[str, float], config: ValidateConfig) -> list[Any]:
    table = pd.DataFrame([totals])
    return [_between(gx, name, limits, table, "totals") for name, limits in config.totals.items()]


def _between(gx: Any, column: str, limits: Range, table: pd.DataFrame, section: str, **where: str) -> Any:
    numbers = [name for name in table.columns if is_any_real_numeric_dtype(table[name])]
    if column not in numbers:
        raise DataError(f"validate.{section} limits `{column}`, which is none of its figures: {', '.join(numbers)}")
    return gx.expectations.ExpectColumnValuesToBeBetween(
        column=column, min_value=limits.low, max_value=limits.high, mostly=1 - limits.share_outside, **where
    )


def _finding(outcome: Any, of_totals: bool, table: pd.DataFrame) -> Finding:
    settings = outcome.expectation_config
    kwargs = {k: v for k, v in settings.kwargs.items() if k not in ("batch_id", "condition_parser")}
    condition = kwargs.pop("row_condition", None)
    if condition is not None:
        kwargs["where"] = condition["pass_through_filter"] if isinstance(condition, dict) else str(condition)
    text = f"{settings.type}({', '.join(f'{k}={v!r}' for k, v in sorted(kwargs.items()))})"
    result = outcome.result or {}
    if raised := _raised(outcome):
        return Finding(text, False, f"could not be examined: {raised}", ())
    if settings.type in _SCHEMA:
        value = result.get("observed_value")
        return Finding(text, bool(outcome.success), ", ".join(value) if isinstance(value, list) else str(value), ())
    values = result.get("partial_unexpected_list") or []
    if of_totals:
        names = [] if outcome.success else _behind(kwargs["column"], table)
        return Finding(text, bool(outcome.success), f"{values[0]}" if values else "within", tuple(names[:_SHOWN]))
    names = [str(row["name"]) for row in result.get("partial_unexpected_index_list") or []]
    observed = f"{result.get('unexpected_count', 0)} of {result.get('element_count', 0)} outside"
    if values:
        observed += f", such as {values[0]}"
    return Finding(text, bool(outcome.success), observed, tuple(sorted(names)[:_SHOWN]))


def _raised(outcome: Any) -> str:
    """What Great Expectations itself failed with, "" if with nothing; it tells so once, or for each figure it needs."""
    told = outcome.exception_info
    each = [told] if "raised_exception" in told else told.values()
    return next((str(one["exception_message"]) for one in each if one["raised_exception"]), "")


def _behind(total: str, table: pd.DataFrame) -> list[str]:
    """Photographs that make a total what it is, with their reasons; none where it is of the data set as a whole."""
    rejected = (table.status == "rejected") & ~table.reason.isin(NOT_COUNTED)
    if total == "unaccounted":
        rows = (table.status != "accepted") & ~((table.status == "rejected") & (table.reason != ""))
    elif total == "reject_share":
        rows = rejected
    elif total.startswith("share_"):
        rows = rejected & (table.reason == total.removeprefix("share_"))
    else:
        return []
    some = table[rows].head(_SHOWN)
    return [f"{name} ({reason or 'no reason'})" for name, reason in zip(some.name, some.reason, strict=True)]
