"""What INT8 cost and how it was made: calibration, its coverage, layers that suffer, what stayed in float."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekd import units
from edgekd.report.charts import bar
from edgekd.report.facts import Facts, entries, number, part
from edgekd.tags import Cells, Node, code, folded, named, table, tag

ROWS = 15


def calibration(facts: Facts) -> list[Node]:
    """The recipe, the samples, and what the students agree on."""
    quantization = part(facts.export, "quantization")
    if not quantization:
        return [tag("p", "There is no INT8 student: ", code(facts.command("export", "--int8")), ".")]
    recipe, count = part(quantization, "recipe"), number(quantization, "samples", "count")
    flavour = part(quantization, "flavour")
    told = f"Ranges by recipe {recipe.get('name', '?')} ({recipe.get('title', '')}), found on {count or 0:,.0f} samples"
    told += f" for target {facts.export.get('target', '?')}."
    kinds = f"Activations {flavour.get('activation', '?')}, weights {flavour.get('weight', '?')}"
    kinds += ", one scale per channel." if flavour.get("per_channel") else ", one scale per tensor."
    left = part(quantization, "float_nodes")
    computes = ", ".join(f"{number(left, name) or 0:.0f} × {name}" for name in left) or "none"
    nodes = [tag("p", told), tag("p", kinds), tag("p", f"Nodes that still compute in float: {computes}.")]
    reasons = [
        (str(one.get("node", "?")), str(one.get("reason", "?"))) for one in entries(quantization, "float_reasons")
    ]
    if reasons:
        why_float: list[Cells] = [[named(node), why] for node, why in reasons]
        nodes.append(folded("Why they do", table(["node", "why"], why_float, caption="Nodes in float")))
    return [*nodes, *_proofs(facts), *_steps(quantization)]


def _share(value: float | None) -> str:
    return units.write_share(value) if value is not None else "–"


def _proofs(facts: Facts) -> list[Node]:
    """Float beside what was made of it, on samples that nothing was calibrated on; of older runs agreement alone."""
    nodes = []
    for precision in part(facts.export, "proof"):
        rows: list[Cells] = []
        for row in entries(facts.export, "proof", precision):
            size, p50 = number(row, "bytes"), number(row, "p50_ms")
            rows.append([str(row.get("label", "?")), units.write_size(size) if size else "–"])
            rows[-1] += [_share(number(row, key)) for key in ("agreement_float", "agreement_teacher")]
            rows[-1].append(units.write_time(p50) if p50 else "–")
        if rows:
            heads = ["", "size", "agrees with float", "with teacher", "p50"]
            nodes.append(table(heads, rows, caption=f"What {precision} cost, on samples held out"))
    kept = number(facts.export, "agreement", "student_int8_student")
    if not nodes and kept is not None:
        told = f"The INT8 student chooses what the float student does on {_share(kept)} of the held-out images."
        nodes.append(tag("p", told))
    return nodes


def _steps(quantization: Mapping[str, Any]) -> list[Node]:
    rows: list[Cells] = []
    for step in entries(quantization, "steps"):
        noise = number(step, "sqnr_db")
        kept = "kept" if step.get("kept") else "left out"
        told = f"{noise:.1f} dB" if noise is not None else "–"
        rows.append([str(step.get("name", "?")), _share(number(step, "agreement")), told, kept])
    heads = ["tried", "agrees with float", "signal to noise", ""]
    return [table(heads, rows, caption="Remedies that were tried, in turn")] if len(rows) > 1 else []


# ------------------------------------------------------------------------------------------------------------- coverage


def coverage(facts: Facts) -> list[Node]:
    """How well the calibration samples cover the activations of a reference, beside noise."""
    told = part(facts.export, "coverage")
    kinds = [kind for kind in ("calibration", "noise") if number(told, kind, "overlap") is not None]
    if not kinds:
        return [
            tag(
                "p",
                "export.json does not tell it; ",
                code(facts.command("export", "--int8")),
                " of a newer edgekd does.",
            )
        ]
    titles = {"calibration": "calibration samples", "noise": "noise, for comparison"}
    rows: list[Cells] = []
    for kind in kinds:
        overlap, outside = number(told, kind, "overlap") or 0.0, number(told, kind, "outside") or 0.0
        drawn = bar(overlap, 1.0, "two" if kind == "calibration" else "three")
        rows.append([titles[kind], units.write_share(overlap), drawn, units.write_share(outside)])
    heads = ["", "in common", "", "outside the range"]
    caption = f"Activations, beside {told.get('reference', 'a reference')}; mean over tensors"
    tensors = part(told, "calibration", "tensors")
    worst = sorted(tensors, key=lambda name: -(number(tensors, name, "outside") or 0.0))[:ROWS]
    detail: list[Cells] = [
        [named(n), _share(number(tensors, n, "overlap")), _share(number(tensors, n, "outside"))] for n in worst
    ]
    nodes = [table(heads, rows, caption=caption, class_="bars")]
    if detail:
        inner = table(["tensor", "in common", "outside the range"], detail, caption="Tensors, the least covered first")
        nodes.append(folded(f"By tensor, {len(detail)} of {len(tensors):,}", inner))
    return nodes


def sensitivity(facts: Facts) -> list[Node]:
    """Signal over noise of the answers when one layer alone computes in INT8, the costliest first."""
    ranked = [one for one in entries(facts.export, "quantization", "sensitivity") if number(one, "sqnr_db") is not None]
    if not ranked:
        looked = "sensitivity" in part(facts.export, "quantization")
        fine = "Layers were not looked at one by one: INT8 as a whole cost little enough."
        return [tag("p", fine if looked else "export.json does not tell which layers INT8 costs most.")]
    ranked.sort(key=lambda one: number(one, "sqnr_db") or 0.0)
    most = max(number(one, "sqnr_db") or 0.0 for one in ranked)
    rows: list[Cells] = []
    for one in ranked:
        noise = number(one, "sqnr_db") or 0.0
        rows.append(
            [named(str(one.get("node", "?"))), str(one.get("operator", "?")), f"{noise:.1f} dB", bar(noise, most)]
        )
    heads, caption = ["layer", "operator", "signal to noise", "from 0; shorter costs more"], "One layer alone in INT8"
    nodes = [table(heads, rows[:ROWS], caption=f"{caption}, the costliest first", class_="bars")]
    if len(rows) > ROWS:
        nodes.append(
            folded(f"The other {len(rows) - ROWS:,} layers", table(heads, rows[ROWS:], caption=caption, class_="bars"))
        )
    return nodes
