"""The model card of a version: what it is, what it was made from, how it did before the gate. Markdown."""

from __future__ import annotations

from typing import Any

from lapcvae.registry.gate import Check, Verdict


def card(
    name: str, version: int, champion: int | None, verdict: Verdict, tags: dict[str, str], photographs: dict[str, Any]
) -> str:
    """The card. champion: the version it stood against, None for none. photographs: `test` and `people` of the frozen
    set, `train` of the training data.
    """
    against = f"version {champion}" if champion is not None else "the absolute limits, there being no champion"
    dirty = " (with uncommitted changes)" if tags.get("git_dirty") == "true" else ""
    lines = [
        f"# {name}, version {version}: {verdict.decision}",
        "",
        "A Laplacian pyramid of conditional variational autoencoders of aligned face photographs.",
        "",
        f"**Before the gate**, against {against}: {verdict.reason}.",
        "",
        *table(verdict),
        "",
        f"Measured on {photographs['test']} photographs of {photographs['people']} people that no model was trained "
        "on, the same for every version. Intervals are of the paired difference, by bootstrap over people.",
        "",
        "**Made from**",
        "",
        f"- photographs to train on: {photographs['train']}; data digest `{tags.get('data_digest', 'unknown')}`",
        f"- git commit `{tags.get('mlflow.source.git.commit', 'none')}`{dirty}",
        f"- parameters `{tags.get('params_digest', 'unknown')}`; DVC's lock is beside the run, under `lineage/`",
        f"- first weights: {tags.get('warm_start') or 'random'}",
        "",
        "**Use.** Research and demonstration: reconstructing, sampling and editing faces like those it was trained on. "
        "Not for identifying people, nor for judging them. Faces unlike the training data come out worse; who is in "
        "that data decides for whom.",
    ]
    return "\n".join(lines) + "\n"


def table(verdict: Verdict) -> list[str]:
    """The checks as a Markdown table."""
    lines = [
        "| measure (lower is better) | champion | challenger | difference | asked | |",
        "|---|---|---|---|---|---|",
    ]
    absent = [f"| {name} | | | | not asked: {why} | |" for name, why in sorted(verdict.absent.items())]
    return lines + [_line(check) for check in verdict.checks] + absent


def _line(check: Check) -> str:
    old = "" if check.champion is None else f"{check.champion:.4g}"
    between = ""
    if check.interval is not None:
        between = f"{check.interval.mean:+.3g} ({check.interval.low:+.3g} to {check.interval.high:+.3g})"
    holds = "holds" if check.holds else "**broken**"
    return f"| {check.measure} | {old} | {check.challenger:.4g} | {between} | {check.asked} | {holds} |"
