"""A page that shows what a check found: problems, counts, and a picture of every subject."""

import base64
import io
from collections import Counter
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from glioma_xai.data.inspection import Examined, Inspection

MOST_PICTURES = 200
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem }
table { border-collapse: collapse } td, th { padding: .2rem .8rem; text-align: left }
tr + tr { border-top: 1px solid #ccc } .error { color: #a00000 } .warning { color: #7a5200 }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)) }
.pictures { gap: .5rem } figure { margin: 0 } figcaption { font-size: .75rem }
img { width: 100%; image-rendering: pixelated }
"""


def inspection_page(inspection: Inspection, *, title: str) -> str:
    """Return one self-contained HTML page.

    Pictures show the last modality with the contours of lesion (red) and brain (blue), right on
    the left as radiologists look at it.
    """
    problems = "".join(
        f"<tr class={problem.severity}><td>{problem.severity}</td>"
        f"<td>{escape(str(problem))}</td></tr>"
        for problem in inspection.problems
    )
    counts = Counter(
        (one.traits.categories["site"] or "unknown", one.traits.label)
        for one in inspection.examined
    )
    sites = sorted({site for site, _ in counts})
    head = "".join(f"<th>{escape(name)}</th>" for name in inspection.classes)
    rows = "".join(
        f"<tr><td>{escape(site)}</td>"
        + "".join(f"<td>{counts[site, i]}</td>" for i in range(len(inspection.classes)))
        + "</tr>"
        for site in sites
    )
    shown = inspection.examined[:: max(1, -(-len(inspection.examined) // MOST_PICTURES))]
    pictures = "".join(_figure(one, inspection) for one in shown)
    nothing = "<tr><td>no problem found</td></tr>"
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title>"
        f"<style>{_STYLE}</style><h1>{escape(title)}</h1>"
        f"<h2>Problems</h2><table>{problems or nothing}</table>"
        f"<h2>Subjects by site and class</h2><table><tr><th>site</th>{head}</tr>{rows}</table>"
        f"<h2>{len(shown)} of {len(inspection.examined)} subjects</h2>"
        f"<div class=pictures>{pictures}</div></html>\n"
    )


def write_inspection_page(inspection: Inspection, path: Path, *, title: str) -> None:
    """Write the page to a file, and the folder it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(inspection_page(inspection, title=title), encoding="utf-8")


def _figure(one: Examined, inspection: Inspection) -> str:
    subject = one.entry.subject
    label = inspection.classes[one.traits.label]
    buffer = io.BytesIO()
    Image.fromarray(_drawn(one.picture)).save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    caption = escape(f"{subject.subject_id} {label}")
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _drawn(picture: NDArray[np.float16]) -> NDArray[np.uint8]:
    """Return (rows, columns, 3), front at the top and right on the left."""
    image, lesion, brain = picture.astype(np.float32)
    low, high = np.percentile(image, (1, 99.5))
    grey = (255 * (image - low) / max(high - low, 1e-6)).clip(0, 255)
    colour = np.repeat(grey[..., None], 3, axis=2)
    colour[_outline(brain == 1)] = (60, 120, 255)
    colour[_outline(lesion == 1)] = (255, 60, 60)
    return colour.transpose(1, 0, 2)[::-1, ::-1].astype(np.uint8)


def _outline(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels of a region that have a neighbour outside."""
    around = np.pad(region, 1)
    inner = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    outline: NDArray[np.bool_] = region & ~inner
    return outline
