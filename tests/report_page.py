"""A report as a reader sees it: its elements, texts and addresses, parsed from the page."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

__all__ = ["Page", "read_page"]

_EMPTY = {"meta", "img", "br", "rect", "line"}
_ADDRESSES = ("src", "href", "action", "data", "poster", "srcset", "xlink:href", "formaction")


@dataclass
class Element:
    """One element; its text is that of everything inside."""

    name: str
    attributes: dict[str, str]
    text: str = ""


@dataclass
class Page:
    """All elements in the order of their starts."""

    source: str
    elements: list[Element] = field(default_factory=list)

    def all(self, name: str, **having: str) -> list[Element]:
        wanted = {key.replace("_", "-"): value for key, value in having.items()}
        return [
            each for each in self.elements if each.name == name and wanted.items() <= each.attributes.items()
        ]

    def one(self, name: str, **having: str) -> Element:
        [found] = self.all(name, **having)
        return found

    def figures(self) -> dict[str, str]:
        """Value of every figure by its path in ``metrics.json``."""
        told = [each.attributes for each in self.all("data")]
        return {each["data-figure"]: each["value"] for each in told if "data-figure" in each}

    def addresses(self) -> list[str]:
        """Whatever the browser would follow or load."""
        return [
            each.attributes[key] for each in self.elements for key in _ADDRESSES if key in each.attributes
        ]


class _Reader(HTMLParser):
    def __init__(self, page: Page) -> None:
        super().__init__()
        self.page, self.open = page, list[Element]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {key: value or "" for key, value in attrs})
        self.page.elements.append(element)
        if tag not in _EMPTY:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.page.elements.append(Element(tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().name == tag

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.text += data


def read_page(source: str | Path) -> Page:
    """Parse a page; every element must be closed where it was opened."""
    page = Page(source.read_text("utf-8") if isinstance(source, Path) else source)
    reader = _Reader(page)
    reader.feed(page.source)
    assert reader.open == []
    return page
