"""HTML and SVG as trees of the standard library's ElementTree, which escapes whatever text a tree holds.

Names of classes, teachers and layers come out of other people's files. They reach a page through `tag` alone, as text
or as the value of an attribute; nothing here takes markup as a string.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from xml.etree import ElementTree as Xml

Node = Xml.Element
Child = Node | str | None
Cell = Child | Sequence[Child]
Cells = list[Cell]
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def tag(name: str, /, *children: Child | Iterable[Child], **attributes: str | float | bool | None) -> Node:
    """An element.

    Args:
        name: of the element.
        children: elements and text, one by one or in iterables; None is left out.
        attributes: `class_` is class and `aria_label` aria-label; None and False are left out, True stands alone.
    """
    node = Xml.Element(name)
    for key, value in attributes.items():
        if value is not None and value is not False:
            node.set(key.rstrip("_").replace("_", "-"), "" if value is True else _written(value))
    for child in children:
        for one in [child] if child is None or isinstance(child, str | Node) else child:
            _append(node, one)
    return node


def _written(value: str | float) -> str:
    return clean(value) if isinstance(value, str) else f"{value:.6g}"


def _append(node: Node, child: Child) -> None:
    if isinstance(child, Node):
        node.append(child)
    elif child is not None:
        text = clean(child)
        if len(node):
            node[-1].tail = (node[-1].tail or "") + text
        else:
            node.text = (node.text or "") + text


def clean(text: str) -> str:
    """Text without what no document may hold: control characters, and halves of characters."""
    return _UNPRINTABLE.sub("\ufffd", text)


def named(text: str) -> Node:
    """A name out of a file, set apart so that one written from right to left turns nothing else around."""
    return tag("bdi", text)


def code(text: str) -> Node:
    """What is typed."""
    return tag("code", text)


def table(headers: Iterable[Child], rows: Iterable[Cells], *, caption: str, class_: str = "") -> Node:
    """A table whose first column names the rows; it scrolls within itself where it is wider than the screen."""
    top = tag("tr", [tag("th", one, scope="col") if one != "" else tag("td") for one in headers])
    body = []
    for first, *cells in rows:
        body.append(tag("tr", tag("th", first, scope="row"), [tag("td", cell) for cell in cells]))
    inner = tag("table", tag("caption", caption), tag("thead", top), tag("tbody", body), class_=class_ or None)
    return tag("div", inner, class_="wide", role="group", aria_label=caption, tabindex="0")


def folded(summary: str, *children: Child | Iterable[Child]) -> Node:
    """What is shown when asked for."""
    return tag("details", tag("summary", summary), *children)


def document(node: Node) -> str:
    """The page."""
    return "<!doctype html>\n" + Xml.tostring(node, encoding="unicode", method="html") + "\n"
