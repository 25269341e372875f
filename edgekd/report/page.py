"""The page: one self-contained file that asks nothing of the network and runs no script."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

from edgekd import __version__
from edgekd.report import curves, images, models, origin, precision
from edgekd.report.facts import Facts
from edgekd.report.origin import Verdicts
from edgekd.tags import Child, Node, named, tag

GENERATOR = "edgekd report"
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""What a browser may load for the page: what is written in it, and nothing else."""

Section = tuple[str, str, Sequence[Node | None]]


def page(facts: Facts, verdicts: Verdicts | None = None, *, head: Sequence[Node] = (), policy: str = POLICY) -> Node:
    """A run as a page of HTML.

    Args:
        facts: of the run.
        verdicts: rows of a gate, if the run was held against a budget.
        head: what else goes into the head: the live view's script.
        policy: what a browser may load.
    """
    title = f"{facts.run.path.absolute().name}: edgekd report"
    body = tag("body", _body(facts, verdicts))
    return tag("html", tag("head", in_head(title, policy), head), body, lang="en")


def in_head(title: str, policy: str = POLICY) -> list[Node]:
    """What every page begins with: its title, the style, what may be loaded."""
    style = resources.files("edgekd.report").joinpath("style.css").read_text(encoding="utf-8")
    return [
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="generator", content=f"{GENERATOR} {__version__}"),
        tag("title", title),
        tag("link", rel="icon", href="data:,"),
        tag("style", style),
    ]


def _body(facts: Facts, verdicts: Verdicts | None) -> list[Node]:
    sections = _sections(facts, verdicts)
    if facts.missing:
        told: Section = ("missing", "What is not in this run", [origin.missing(facts.missing)])
        sections = [*sections[:1], told, *sections[1:]]
    links = [tag("li", tag("a", title, href=f"#{name}")) for name, title, _ in sections]
    top = tag("header", tag("h1", named(facts.run.path.absolute().name)), models.verdict(facts))
    parts = [
        tag("section", tag("h2", title, id=name), [node for node in nodes if node is not None], aria_labelledby=name)
        for name, title, nodes in sections
    ]
    closing = f"Made by edgekd {__version__} from the run folder alone. This page loads nothing and sends nothing."
    return [
        tag("a", "Skip to the figures", href="#models", class_="skip"),
        tag("main", top, tag("nav", tag("ul", links), aria_label="Sections"), parts),
        tag("footer", tag("p", closing)),
    ]


def _sections(facts: Facts, verdicts: Verdicts | None) -> list[Section]:
    """What the page says, in its order; by the time it is made, `facts.missing` knows all that is missing."""
    caveat = tag("p", models.CAVEAT, " ", "Measure, if you can, with labelled images: ", _command(facts), ".")
    return [
        ("models", "Teacher, student, INT8 student", [*models.side_by_side(facts), models.sizes(facts)]),
        ("latency", "Latency", models.latency(facts)),
        ("fidelity", "Fidelity", [caveat, images.on_probes(facts), *images.by_class(facts)]),
        ("samples", "Generated samples", images.samples(facts)),
        ("filters", "First-layer filters", images.first_layers(facts)),
        ("training", "Training", _training(facts)),
        ("queries", "Queries", curves.queries(facts)),
        ("int8", "INT8", precision.calibration(facts)),
        ("coverage", "Calibration coverage", precision.coverage(facts)),
        ("sensitivity", "Sensitivity by layer", precision.sensitivity(facts)),
        ("budget", "Budget", origin.budget(facts, verdicts)),
        ("provenance", "Provenance", origin.provenance(facts)),
    ]


def _training(facts: Facts) -> list[Node | None]:
    return [
        curves.rounds(facts),
        tag("h3", "Agreement and health of the generator"),
        *curves.agreement_curves(facts),
        tag("h3", "Losses"),
        *curves.loss_curves(facts),
        curves.pictures_on_the_way(facts),
    ]


def _command(facts: Facts) -> Child:
    return tag("code", facts.command("eval", "--data evaluation.npz"))
