from matplotlib.colors import to_hex

from runners.figures import Panel, lines, png_bytes


def test_a_name_has_one_colour_in_all_panels_and_one_place_in_the_legend() -> None:
    first = Panel("a", "step", "nats", {"ours": [(1, -9.0), (20, -3.0)], "theirs": [(1, -8.0), (20, -2.0)]})
    second = Panel("b", "rows", "ms", {"theirs": [(10, 1.0), (1000, 2.0)]}, log="x", levels={"real": 0.5})
    figure = lines([first, second], title="both")
    left, right = figure.axes
    assert to_hex(right.lines[0].get_color()) == to_hex(left.lines[1].get_color())
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["ours", "theirs"]
    assert (left.get_xscale(), right.get_xscale(), right.get_yscale()) == ("linear", "log", "linear")
    assert right.get_legend().get_texts()[0].get_text() == "real 0.5"
    assert list(right.lines[0].get_ydata()) == [1.0, 2.0]
    png_bytes(figure)


def test_the_first_steps_do_not_flatten_the_rest() -> None:
    points = [(step, -100.0 - 900 * (step < 3)) for step in range(1, 101)]
    (axes,) = lines([Panel("a", "step", "nats", {"ours": [*points, (101, -90.0)]})]).axes
    assert axes.get_ylim()[0] > -110
