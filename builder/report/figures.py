"""A plot's specification → inline SVG that takes its colours and font from the page, and needs no script.

vl-convert holds Vega-Lite and an engine to run it: nothing is fetched, no browser is started.
"""

from __future__ import annotations

import re
from typing import Final
from xml.etree import ElementTree as ET

from builder.errors import MachineError
from builder.report.charts import Plot

SVG: Final = "http://www.w3.org/2000/svg"
LONG: Final = re.compile(r"-?\d+\.\d{2,}")
NEEDLESS: Final = ("role", "aria-hidden", "aria-roledescription", "pointer-events", "font-family", "stroke-miterlimit")
EMPTY: Final = re.compile(r"(M0,0h0v0h0Z)?")
SHOWS_TIP: Final = ("point", "bar", "rule", "rect", "symbol")
"""Kinds of marks whose description is shown under the pointer."""


def render_svg(plot: Plot) -> str:
    """One `svg` element.

    Raises:
        MachineError: vl-convert-python is not installed.
    """
    try:
        import vl_convert
    except ModuleNotFoundError as error:
        raise MachineError(
            "the plots of a report need vl-convert-python",
            remedy="pip install 'build-repo[report]', or write the report as .md or .json",
        ) from error
    root = ET.fromstring(vl_convert.vegalite_to_svg(plot.spec))  # noqa: S314 - made in the line that reads it
    ET.register_namespace("", SVG)
    _tidy(root)
    for name in ("width", "height", "class", "version"):
        root.attrib.pop(name, None)
    root.set("role", "img")
    root.set("aria-label", f"{plot.title}. {plot.says} {plot.reads}".strip())
    root.set("data-plot", plot.key)
    return ET.tostring(root, encoding="unicode")


def _tidy(element: ET.Element) -> None:
    """Without what says nothing: half of the size. Descriptions of marks become tooltips."""
    kind, label = element.get("aria-roledescription", ""), element.attrib.pop("aria-label", None)
    if label is not None and kind in SHOWS_TIP:
        title = ET.Element(f"{{{SVG}}}title")
        title.text = label
        element.insert(0, title)
    for name in NEEDLESS:
        element.attrib.pop(name, None)
    if element.get("opacity") == "1":
        del element.attrib["opacity"]
    if "role-mark" in element.get("class", ""):
        element.set("class", "marks")
    else:
        element.attrib.pop("class", None)
    for name in ("d", "transform", "x", "y", "x2", "y2", "width", "height", "viewBox"):
        if name in element.attrib:
            element.set(name, LONG.sub(_short, element.attrib[name]))
    for child in list(element):
        if _is_empty(child):
            element.remove(child)
        else:
            _tidy(child)


def _is_empty(element: ET.Element) -> bool:
    """Nothing to see: backgrounds without a size, labels that were faded out for want of room."""
    if element.tag == f"{{{SVG}}}path":
        return element.get("display") == "none" or EMPTY.fullmatch(element.get("d", "")) is not None
    return element.tag == f"{{{SVG}}}text" and element.get("opacity") == "0"


def _short(number: re.Match[str]) -> str:
    return f"{float(number[0]):.1f}".removesuffix(".0")
