"""Legends that fit, however many lines and however long their names."""

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from glioma_xai.visualization.frames import common_legend, draw_named, grid


@pytest.mark.parametrize("count", [1, 20])
@pytest.mark.parametrize("name", ["A", "B lrp_guided loss.guidance_weight=3.0 model=resnet"])
@pytest.mark.parametrize("panels", [1, 6])
def test_the_common_legend_fits_above_the_charts(count, name, panels):
    figure, axes = grid(panels, most_columns=3, width=3.6, height=2.5)
    height = figure.get_figheight()
    for axis in axes:
        draw_named(axis, {f"{name}{k}": ([0, 1], [k, k]) for k in range(count)}, "best")
        axis.get_legend().remove()
    common_legend(figure, axes)
    FigureCanvasAgg(figure).draw()
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1
    assert box.y1 <= figure.bbox.y1
    assert all(axis.get_tightbbox().y1 <= box.y0 + 2 for axis in axes)
    assert figure.get_figheight() < height + 0.4 + 0.4 * count
    assert len(figure.legends[0].get_texts()) == count
