"""Text stays text, whatever it holds."""

from __future__ import annotations

from html.parser import HTMLParser

from edgekd.tags import document, table, tag


class Reading(HTMLParser):
    """What a parser that is not ours makes of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


HOSTILE = """</title><script>alert(1)</script><img src=x onerror=alert(1)> "' & &amp; ]]> <!-- -->"""


def test_text_and_attributes_come_back_as_they_were() -> None:
    read = Reading(document(tag("p", HOSTILE, tag("b", HOSTILE), HOSTILE, title=HOSTILE)))
    assert read.tags == [("p", {"title": HOSTILE}), ("b", {})]
    assert read.text.strip("\n") == HOSTILE * 3


def test_what_no_document_may_hold_is_replaced() -> None:
    page = document(tag("p", "a\x00b\x1bc\ud800d\x7f", title="\x07"))
    assert "a\ufffdb\ufffdc\ufffdd\ufffd" in page
    assert 'title="\ufffd"' in page
    page.encode()


def test_attributes_are_named_as_html_names_them() -> None:
    node = tag("div", class_="a", aria_label="b", http_equiv="c", hidden=True, id=None, title=False, width=1.23456789)
    assert node.attrib == {"class": "a", "aria-label": "b", "http-equiv": "c", "hidden": "", "width": "1.23457"}


def test_a_table_names_its_rows_and_columns() -> None:
    read = Reading(document(table(["", "size"], [["teacher", "1 kB"]], caption="Sizes")))
    cells = [(name, told.get("scope")) for name, told in read.tags if name in ("th", "td")]
    assert cells == [("td", None), ("th", "col"), ("th", "row"), ("td", None)]
