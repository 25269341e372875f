"""What the student learned from and how well it follows, class by class; what the first layers look for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from edgekd import onnx_file, units
from edgekd.codes import Codes
from edgekd.report.charts import bar
from edgekd.report.facts import STUDENTS, Facts, number, part
from edgekd.report.models import KIND, TITLES
from edgekd.report.pictures import embedded, filters, listed, mean_image, strip
from edgekd.run_folder import learned_from
from edgekd.tags import Cells, Child, Node, folded, named, table, tag

SHOWN, EACH, ROWS, FILTERS = 40, 8, 20, 64
FEW = 10
"""Held-out images below which a class counts as rarely generated: an agreement over fewer says little."""


def samples(facts: Facts) -> list[Node]:
    """Per class the newest held-out images that the teacher puts there, beside their mean (after DAFL, figure 2)."""
    held, owners = facts.held_out, facts.owners
    if held is None or owners is None:
        return [tag("p", "There are no held-out images; a run writes them when it ends."), *_on_the_way(facts)]
    side, kind = 64 if owners.shape[1] <= ROWS else 32, learned_from(facts.record).split()[0]
    body: list[Cells] = []
    for option in range(min(owners.shape[1], SHOWN)):
        own, name = held.codes[owners[:, option]], facts.option(option)
        body.append([[named(name), tag("small", f"{len(own):,} held out")], *_pictures(own, name, side, kind)])
    rest = owners.shape[1] - SHOWN
    more = tag("p", f"The first {SHOWN} of {owners.shape[1]:,} are shown.", class_="quiet") if rest > 0 else None
    made = "Images that the generator made" if kind == "generated" else learned_from(facts.record).capitalize()
    why = (
        f"{made} that the student did not learn from, as the teacher names them; "
        "beside them the mean of all of that class."
    )
    grid = table(
        ["class", "mean", "newest"],
        body,
        caption=f"{learned_from(facts.record).capitalize()} by class",
        class_="samples",
    )
    return [tag("p", why), grid, *([more] if more is not None else [])]


def _on_the_way(facts: Facts) -> list[Node]:
    """The newest grid that a run wrote so far."""
    grids = sorted(facts.run.samples.glob("step_*.png"))
    try:
        content = grids[-1].read_bytes() if grids else b""
    except OSError:
        content = b""
    if not content:
        return []
    alt = f"Generated images of the first classes, a row each, as in {grids[-1].name}"
    return [tag("figure", embedded(content, alt), tag("figcaption", f"{alt}; the newest on the left."))]


def _pictures(own: Codes, name: str, side: int, kind: str) -> tuple[Child, Child]:
    if not len(own):
        return "none", "none was generated" if kind == "generated" else "none"
    if own.shape[2:] == (1, 1):
        what = "rows of a table" if own.dtype == np.uint8 else "token ids"
        return "", f"{what}, which are no pictures"
    own = own.astype(np.uint8, copy=False)
    mean = strip(mean_image(own), f"Mean of {len(own)} {kind} images of {name}", columns=1, side=44, at_most=side)
    newest = own[-EACH:][::-1]
    alt = f"{len(newest)} {kind} images that the teacher calls {name}"
    return mean, strip(newest, alt, columns=EACH, side=44, at_most=side)


# ------------------------------------------------------------------------------------------------------------- by class


def by_class(facts: Facts) -> list[Node]:
    """Agreement on held-out generated images per class, the worst first; classes that the student hardly saw."""
    shares = {label: found for label in STUDENTS if (found := facts.shares_by_option(label)) is not None}
    owners = facts.owners
    if owners is None or not shares:
        return [tag("p", "Nothing can be said by class without held-out images and an exported student.")]
    counts = [int(count) for count in owners.sum(axis=0)]
    few = [facts.option(k) for k, count in enumerate(counts) if count < FEW]
    last = shares[list(shares)[-1]]
    order = sorted(range(len(counts)), key=lambda k: (last[k] is None, last[k] if last[k] is not None else 1.0, k))
    told = [_row(facts, option, counts[option], shares) for option in order]
    heads: list[Child] = ["class", "held out"]
    for label in shares:
        heads += [tag("span", TITLES[label], class_=f"key {KIND[label]}"), ""]
    nodes: list[Node] = [_rarely(few)] if few else []
    nodes.append(table(heads, told[:ROWS], caption="Agreement with the teacher by class, lowest first", class_="bars"))
    if len(told) > ROWS:
        rest = table(heads, told[ROWS:], caption="The other classes", class_="bars")
        nodes.append(folded(f"The other {len(told) - ROWS:,} classes", rest))
    return nodes


def on_probes(facts: Facts) -> Node | None:
    """Agreement on what was made of held-out images, of the files as they are now, as `eval --no-data` told it."""
    body: list[Cells] = []
    for row in facts.rows[1:]:
        record = facts.probed(row)
        for name in part(record, "probes"):
            share = number(record, "probes", name, "agreement")
            if share is not None:
                drawn = bar(share, 1.0, KIND[row.label])
                body.append([TITLES[row.label], name.replace("_", " "), units.write_share(share), drawn])
        if (share := number(record, "estimate", "agreement")) is not None:
            drawn = bar(share, 1.0, KIND[row.label])
            body.append([TITLES[row.label], "real images, estimated", units.write_share(share), drawn])
    heads = ["", "probe", "agreement", ""]
    return table(heads, body, caption="Agreement on probes made of held-out images", class_="bars") if body else None


def _rarely(few: list[str]) -> Node:
    what = f"Fewer than {FEW} held-out images of "
    then = ": the student hardly saw these, and what is said of it there rests on little."
    return tag("p", what, named(listed(few)), then, class_="warning")


def _row(facts: Facts, option: int, count: int, shares: dict[str, list[float | None]]) -> Cells:
    cells: Cells = [named(facts.option(option)), f"{count:,}"]
    for label, found in shares.items():
        share = found[option]
        cells += ["–", ""] if share is None else [units.write_share(share), bar(share, 1.0, KIND[label])]
    return cells


# -------------------------------------------------------------------------------------------------------------- filters


def first_layers(facts: Facts) -> list[Node]:
    """Filters of the first convolutions, where models have one (after DAFL, figure 3)."""
    nodes = []
    known = {"teacher": facts.teacher_file, "student": facts.files.get("student")}
    for label, path in known.items():
        weights = _first_filters(onnx_file.load(path)) if path is not None else None
        if weights is None:
            continue
        count, height, width = len(weights), *weights.shape[2:]
        alt = (
            f"{min(count, FILTERS)} of {count} filters of {height} by {width} pixels of the {label}'s first convolution"
        )
        drawn = strip(filters(weights, FILTERS), alt, columns=16, side=20)
        told = f"{TITLES[label]}: {count} filters of {height} × {width}, each in its own range; grey is zero."
        nodes.append(tag("figure", drawn, tag("figcaption", told)))
    return nodes or [tag("p", "No model at hand begins with a convolution of images.")]


def _first_filters(model: ModelProto) -> NDArray[np.float32] | None:
    """Weights `[O, I, h, w]` of the first convolution that has them in the file, larger than one pixel."""
    constants = onnx_file.constants(model)
    for node in model.graph.node:
        if node.op_type == "Conv" and len(node.input) > 1 and node.input[1] in constants:
            weights = numpy_helper.to_array(constants[node.input[1]])
            fits = weights.ndim == 4 and weights.size and max(weights.shape[2:]) > 1 and np.isfinite(weights).all()
            return weights.astype(np.float32) if fits else None
    return None
