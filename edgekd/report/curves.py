"""How the training went: a small chart per quantity, each on its own scale, and what teachers were asked."""

from __future__ import annotations

from collections.abc import Callable

from edgekd import units
from edgekd.report.charts import Series, bar, lines
from edgekd.report.facts import Facts, number, shown_name
from edgekd.tags import Cells, Node, code, folded, named, table, tag

_NOT_LOSSES = ("step", "seconds", "class_entropy", "diversity", "disagreement", "queries", "agreement")
_HEALTH: dict[str, tuple[str, Callable[[float], float]]] = {
    "disagreement": ("agreement on the newest generated images", lambda share: 1 - share),
    "class_entropy": ("balance of classes among them, of 1", float),
    "diversity": ("difference between two of them, of the range", float),
}
_MEANING = {
    "soft_labels": "student: divergence from the teacher",
    "regression": "students side by side: squared error of their chunks, summed",
    "fooling": "students side by side: what their discriminators tell",
    "discriminating": "discriminators: telling students from the teacher",
    "joined": "last layer: divergence from the teacher",
    "one_hot": "generator, L_oh: the teacher is sure",
    "entropy": "generator, L_ie: all classes alike",
    "statistics": "generator, L_bn: statistics like the data's",
    "adversary": "generator, L_adv: the student is not right yet",
    "activation": "generator, L_a: features respond",
}


def agreement_curves(facts: Facts) -> list[Node]:
    """What was examined of the newest images now and then: agreement, balance, difference."""
    drawn = [_chart(facts, key, name, change) for key, (name, change) in _HEALTH.items()]
    found = [one for one in drawn if one is not None]
    return [_grid(found)] if found else [tag("p", "Nothing of it has been logged yet.")]


def loss_curves(facts: Facts) -> list[Node]:
    """Every loss term, as the run logged it, and where each began and ended as a table."""
    names = sorted({name for line in facts.metrics for name in line} - set(_NOT_LOSSES), key=_order)
    drawn = [(name, _chart(facts, name, _MEANING.get(name, ""), float)) for name in names]
    found = [one for _, one in drawn if one is not None]
    return [_grid(found)] if found else [tag("p", "No losses have been logged yet.")]


def _order(name: str) -> tuple[int, str]:
    known = list(_MEANING)
    return (known.index(name) if name in known else len(known), name)


def _grid(charts: list[Node]) -> Node:
    return tag("div", charts, class_="charts")


def _chart(facts: Facts, key: str, meaning: str, change: Callable[[float], float]) -> Node | None:
    seconds = [line["seconds"] for line in facts.metrics if key in line]
    values = [change(line[key]) for line in facts.metrics if key in line]
    if not values:
        return None
    first, last, least, most = values[0], values[-1], min(values), max(values)
    words = f"from {first:.3g} to {last:.3g}, between {least:.3g} and {most:.3g}"
    heading = meaning if key in _HEALTH else key
    title = tag(
        "figcaption", tag("b", heading), tag("small", words if key in _HEALTH else f"{meaning}; {words}".lstrip("; "))
    )
    kind = "two" if key == "soft_labels" else "one"
    drawn = lines(
        f"{heading} over training time: {words}",
        [Series(key, seconds, values, kind)],
        x_write=_minutes,
        y_write=lambda value: f"{value:.3g}",
    )
    return tag("figure", title, drawn)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 1 else "0"


def rounds(facts: Facts) -> Node:
    """How far it got."""
    progress = [(name, number(facts.record, "progress", name)) for name in ("step", "seconds", "images")]
    step, seconds, images = (value or 0.0 for _, value in progress)
    told = (
        f"{step:,.0f} rounds in {seconds / 60:.1f} minutes; the student was shown {units.write_count(images)} images."
    )
    if facts.metrics and facts.record["state"] == "running":
        line = facts.metrics[-1]
        told = f"{line.get('step', 0):,.0f} rounds in {line['seconds'] / 60:.1f} minutes so far."
    return tag("p", told)


def queries(facts: Facts) -> list[Node]:
    """The ledger: samples asked about, in all and by teacher, beside the limit."""
    spent = facts.spent()
    asked = sum(spent.values()) or number(facts.record, "queries", "asked")
    limit = number(facts.record, "queries", "limit") or number(facts.record, "settings", "max_queries")
    if asked is None:
        access = facts.record["teacher"].get("access", "gradient")
        why = (
            f"Nothing was counted: the teacher's file was at hand (access {access}), and what it answers costs nothing."
        )
        return [tag("p", why)]
    of = f" of the {limit:,.0f} allowed" if limit else "; there was no limit"
    nodes = [tag("p", f"The teachers were asked about {asked:,.0f} samples{of}.")]
    if limit:
        nodes.append(tag("div", bar(asked, limit), class_="meter"))
    if spent:
        rows: list[Cells] = [[named(shown_name(teacher)), f"{samples:,}"] for teacher, samples in spent.items()]
        nodes.append(table(["teacher", "samples"], rows, caption="Samples asked about, by teacher"))
    return [*nodes, *_by_queries(facts)]


def _by_queries(facts: Facts) -> list[Node]:
    """What the queries bought: agreement on the newest generated images against how many were asked by then."""
    found = [line for line in facts.metrics if "queries" in line and "agreement" in line]
    if len(found) < 2:
        return []
    asked, agreed = ([line[name] for line in found] for name in ("queries", "agreement"))
    words = f"from {agreed[0]:.3g} at {asked[0]:,.0f} queries to {agreed[-1]:.3g} at {asked[-1]:,.0f}"
    heading = "agreement on the newest generated images"
    drawn = lines(
        f"{heading} against queries: {words}",
        [Series("agreement", asked, agreed, "one")],
        x_write=lambda count: f"{count:,.0f}",
        y_write=lambda value: f"{value:.3g}",
    )
    caption = tag("figcaption", tag("b", f"{heading}, against queries"), tag("small", words))
    return [_grid([tag("figure", caption, drawn)])]


def pictures_on_the_way(facts: Facts) -> Node | None:
    """Where the grids lie that show the generator at earlier moments."""
    grids = sorted(facts.run.samples.glob("step_*.png"))
    if not grids:
        return None
    names = [tag("li", code(f"samples/{grid.name}")) for grid in grids]
    return folded("What the generator made on the way, as files of the run", tag("ul", names))
