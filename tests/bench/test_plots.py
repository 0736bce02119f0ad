"""The plot is well-formed SVG and shows every point where it belongs."""

from xml.etree import ElementTree as Tree

from bench.figures import figure
from bench.plots import growth

SVG = "{http://www.w3.org/2000/svg}"


def test_every_point_is_there_and_higher_is_more() -> None:
    figures = [
        figure("growth", "1 tenants", 2.0, "us/event"),
        figure("growth", "10,000 tenants", 4.0, "us/event"),
        figure("growth", "16 streams", 3.0, "us/event"),
        figure("growth", "16 streams: rows of facts", 900.0, "rows/event"),
        figure("decode", "16 streams", 99.0, "us/event"),
    ]
    root = Tree.fromstring(growth(figures))  # noqa: S314  # our own text
    circles = [(float(one.attrib["cx"]), float(one.attrib["cy"])) for one in root.iter(f"{SVG}circle")]
    assert len(circles) == 3
    (first_x, first_y), (last_x, last_y), (_, middle_y) = circles
    assert first_x < last_x
    assert first_y > middle_y > last_y, "y runs down in SVG"
    assert [one.text for one in root.iter(f"{SVG}text")][-2:] == ["tenants", "streams"]


def test_without_figures_it_is_an_empty_plot() -> None:
    assert not list(Tree.fromstring(growth([])).iter(f"{SVG}circle"))  # noqa: S314  # our own text
