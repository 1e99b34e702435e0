"""README's figure: python docs/figures/make_plain_and_guided.py <plain run> <guided run>."""

import io
import sys
from pathlib import Path

from PIL import Image

from glioma_xai.experiment import instantiate
from glioma_xai.experiment.cases import collect, draw_cases
from glioma_xai.experiment.saved import load_module, open_run
from glioma_xai.visualization.overlays import to_png


def draw(folder: Path) -> Image.Image:
    """The first high-grade test sample, which carries the marker, as this run's network sees it."""
    saved = open_run(folder, [])
    data = instantiate.build_data(saved.config)
    data.setup("test")
    module, _ = load_module(saved, data)
    table = data.table[data.table["split"] == "test"].reset_index(drop=True)
    row = int(table.index[table["label"] == data.classes.index("HGG")][0])
    batch = collect(data, "test", [row])
    (figure,) = draw_cases(module, batch, classes=data.classes, modalities=data.modalities).values()
    return Image.open(io.BytesIO(to_png(figure, dots_per_inch=80))).convert("RGB")


pictures = [draw(Path(argument)) for argument in sys.argv[1:3]]
width, height = max(p.width for p in pictures), sum(p.height for p in pictures)
page = Image.new("RGB", (width, height), "white")
for number, picture in enumerate(pictures):
    page.paste(picture, (0, sum(p.height for p in pictures[:number])))
page.quantize(128).save(Path(__file__).parent / "plain_and_guided.png", optimize=True)
