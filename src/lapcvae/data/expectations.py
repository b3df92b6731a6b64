"""What the manifest must look like before anything is trained on it: a Great Expectations suite from `params.yaml`.

The only file that imports great_expectations, and only when it is used (the import takes seconds).
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lapcvae.data.docs_pages import make_offline
from lapcvae.data.manifest import TYPES
from lapcvae.data.manifest_table import PHOTOGRAPHS, SCHEMA, SQL_TYPES, TOTALS, ManifestTable
from lapcvae.data.reasons import NOT_COUNTED, REASONS
from lapcvae.data.split import SPLITS
from lapcvae.errors import DataError

_FORMAT = {"result_format": "SUMMARY", "unexpected_index_column_names": ["name"]}
_SCHEMA = ("expect_table_columns_to_match_set", "expect_column_values_to_be_of_type")
_SITE = "data_docs"
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
    table: ManifestTable, totals: dict[str, float], config: ValidateConfig, docs: Path | None = None
) -> list[Finding]:
    """Run both suites, on a manifest's table and on its totals; with `docs`, write Data Docs there (`index.html`).

    Great Expectations asks the database, so that photographs are never all in memory.
    """
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    table.put_totals(totals)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package warns about its own dependencies
        import great_expectations as gx
        from great_expectations.data_context.types.base import ProgressBarsConfig

        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = ProgressBarsConfig(globally=False)
        source = context.data_sources.add_sqlite("manifest", connection_string=table.url)
        definitions = [
            _definition(gx, context, source, PHOTOGRAPHS, _photographs(gx, config)),
            _definition(gx, context, source, TOTALS, _totals(gx, totals, config)),
        ]
        if docs is not None:
            _add_site(context, docs)
        outcomes = []
        for definition in definitions:
            checkpoint = gx.Checkpoint(name=definition.name, validation_definitions=[definition], result_format=_FORMAT)
            run = context.checkpoints.add_or_update(checkpoint).run()
            outcomes += [
                (outcome, definition.name) for result in run.run_results.values() for outcome in result.results
            ]
        if docs is not None:
            context.build_data_docs(site_names=[_SITE])  # its own default site would be left in the temporary folder
    findings = sorted(
        (_finding(outcome, of, table) for outcome, of in outcomes), key=lambda finding: finding.expectation
    )
    if docs is not None:
        make_offline(docs, findings)
    return findings


def _definition(gx: Any, context: Any, source: Any, name: str, expectations: list[Any]) -> Any:
    batch = source.add_table_asset(name, table_name=name).add_batch_definition_whole_table(name)
    suite = context.suites.add_or_update(gx.ExpectationSuite(name, expectations=expectations))
    return context.validation_definitions.add_or_update(gx.ValidationDefinition(name=name, data=batch, suite=suite))


def _add_site(context: Any, docs: Path) -> None:
    docs.mkdir(parents=True, exist_ok=True)
    store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs.resolve())}
    index = {"class_name": "DefaultSiteIndexBuilder"}
    context.add_data_docs_site(
        _SITE, {"class_name": "SiteBuilder", "store_backend": store, "site_index_builder": index}
    )


def _photographs(gx: Any, config: ValidateConfig) -> list[Any]:
    from great_expectations.expectations.row_conditions import Column

    e = gx.expectations
    is_accepted = Column("status") == "accepted"
    accepted = {"row_condition": is_accepted}
    near = {"row_condition": is_accepted & (Column("near") != "")}
    rejected = {"row_condition": Column("status") == "rejected"}
    checks = [
        e.ExpectTableColumnsToMatchSet(column_set=list(SCHEMA), exact_match=True),
        *(
            e.ExpectColumnValuesToBeOfType(column=name, type_=SQL_TYPES[kind])
            for name, kind in SCHEMA.items()
            if kind is not str
        ),
        e.ExpectColumnValuesToBeInSet(column="status", value_set=["accepted", "rejected"]),
        e.ExpectColumnValuesToBeInSet(column="split", value_set=list(SPLITS), **accepted),
        e.ExpectColumnValuesToBeInSet(column="reason", value_set=sorted(REASONS), **rejected),
        e.ExpectColumnValuesToBeInSet(column="reason", value_set=[""], **accepted),
        e.ExpectColumnValuesToBeInSet(column="sha256_whole", value_set=[1], **accepted),
        e.ExpectColumnValuesToBeUnique(column="row", **accepted),
        e.ExpectColumnValuesToBeUnique(column="pixels_sha256", **accepted),
        e.ExpectColumnValuesToBeInSet(column="group_splits", value_set=[1], **accepted),
        e.ExpectColumnValuesToBeInSet(column="near_splits", value_set=[1], **near),
    ]
    # What CelebA's makers aligned is taken as it is, faces in profile too, whose points lie far from the template's.
    conditions = {"residual": {"row_condition": is_accepted & (Column("source") != "celeba")}}
    figures = [name for name, kind in TYPES.items() if kind is not str]
    return checks + [
        _between(gx, column, limits, figures, "ranges", **conditions.get(column, accepted))
        for column, limits in config.ranges.items()
    ]


def _totals(gx: Any, totals: dict[str, float], config: ValidateConfig) -> list[Any]:
    return [_between(gx, name, limits, totals, "totals") for name, limits in config.totals.items()]


def _between(gx: Any, column: str, limits: Range, figures: Collection[str], section: str, **where: Any) -> Any:
    if column not in figures:
        raise DataError(f"validate.{section} limits `{column}`, which is none of its figures: {', '.join(figures)}")
    return gx.expectations.ExpectColumnValuesToBeBetween(
        column=column, min_value=limits.low, max_value=limits.high, mostly=1 - limits.share_outside, **where
    )


def _finding(outcome: Any, of: str, table: ManifestTable) -> Finding:
    settings = outcome.expectation_config
    kwargs = {k: v for k, v in settings.kwargs.items() if k not in ("batch_id", "condition_parser")}
    if condition := kwargs.pop("row_condition", None):
        kwargs["where"] = _where(condition)
    text = f"{settings.type}({', '.join(f'{k}={v!r}' for k, v in sorted(kwargs.items()))})"
    result = outcome.result or {}
    if raised := _raised(outcome):
        return Finding(text, False, f"could not be examined: {raised}", ())
    if settings.type in _SCHEMA:
        value = result.get("observed_value")
        return Finding(text, bool(outcome.success), ", ".join(value) if isinstance(value, list) else str(value), ())
    values = result.get("partial_unexpected_list") or []
    if of == TOTALS:
        names = [] if outcome.success else _behind(kwargs["column"], table)
        return Finding(text, bool(outcome.success), f"{values[0]}" if values else "within", tuple(names[:_SHOWN]))
    names = [str(row["name"]) for row in result.get("partial_unexpected_index_list") or []]
    observed = f"{result.get('unexpected_count', 0)} of {result.get('element_count', 0)} outside"
    if values:
        observed += f", such as {values[0]}"
    return Finding(text, bool(outcome.success), observed, tuple(sorted(names)[:_SHOWN]))


def _where(condition: Any) -> str:
    """A row condition in words."""
    if condition["type"] == "and":
        return " and ".join(map(_where, condition["conditions"]))
    return f"{condition['column']['name']} {condition['operator']} {condition['parameter']!r}"


def _raised(outcome: Any) -> str:
    """What Great Expectations itself failed with, "" if with nothing; it tells so once, or for each figure it needs."""
    told = outcome.exception_info
    each = [told] if "raised_exception" in told else told.values()
    return next((str(one["exception_message"]) for one in each if one["raised_exception"]), "")


def _behind(total: str, table: ManifestTable) -> list[str]:
    """Photographs that make a total what it is, with their reasons; none where it is of the data set as a whole."""
    not_counted = ", ".join(f"'{reason}'" for reason in sorted(NOT_COUNTED))
    rejected = f"status = 'rejected' AND reason NOT IN ({not_counted})"
    which = {
        "unaccounted": "status != 'accepted' AND NOT (status = 'rejected' AND reason != '')",
        "reject_share": rejected,
    } | {f"share_{reason}": f"{rejected} AND reason = '{reason}'" for reason in REASONS}
    if total not in which:
        return []
    some = table.ask(f"SELECT name, reason FROM {PHOTOGRAPHS} WHERE {which[total]} LIMIT {_SHOWN}")
    return [f"{name} ({reason or 'no reason'})" for name, reason in some]
