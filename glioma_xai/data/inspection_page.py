"""A page that shows what a check found: problems, tables, and pictures of the subjects."""

import base64
import io
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from glioma_xai.data.inspection import Examined, Inspection
from glioma_xai.data.overview import composition, intensities

GAP = 2
"""White pixels between modalities."""
_RED, _BLUE = (255, 70, 70), (70, 130, 255)
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem }
table { border-collapse: collapse } td, th { padding: .15rem .8rem .15rem 0; text-align: right }
td:first-child, th:first-child, .problems td { text-align: left; vertical-align: top }
tr + tr { border-top: 1px solid #ddd } .error { color: #a00000 } .warning { color: #7a5200 }
.tables { display: flex; flex-wrap: wrap; gap: 1rem 4rem }
.pictures { display: grid; gap: .8rem }
figure { margin: 0 } figcaption { font-size: .75rem; overflow-wrap: anywhere }
img { width: 100%; image-rendering: pixelated; background: #000 }
"""


def inspection_page(inspection: Inspection, *, title: str) -> str:
    """Return one self-contained HTML page.

    Pictures show every modality of the slice with the largest tumour, its outline in red, that of
    the brain in blue on the first, the patient's right on the left.
    """
    problems = "".join(
        f"<tr class={problem.severity}><td>{problem.severity}</td>"
        f"<td>{escape(str(problem))}</td></tr>"
        for problem in inspection.problems
    )
    nothing = "<tr><td>no problem found</td></tr>"
    tables = "".join(
        f"<div><h2>{name}</h2>{table.to_html(index=False, border=0)}</div>"
        for name, table in (
            ("Subjects", composition(inspection)),
            ("Intensities in the brain beside the tumour", intensities(inspection)),
        )
        if inspection.examined
    )
    shown = [one for one in inspection.examined if one.picture is not None]
    shown.sort(key=lambda one: (one.traits.patient_id, one.entry.subject.slice_index or 0))
    width = 8 * len(inspection.modalities)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title>"
        f"<style>{_STYLE}.pictures {{ grid-template-columns: "
        f"repeat(auto-fill, minmax({width}rem, 1fr)) }}</style><h1>{escape(title)}</h1>"
        f"<h2>Problems</h2><table class=problems>{problems or nothing}</table>"
        f"<div class=tables>{tables}</div>"
        f"<h2>{len(shown)} of {len(inspection.examined)} subjects</h2>"
        f"<p>{escape(', '.join(inspection.modalities))}, where the tumour is largest, scaled as in "
        f"training. Red: lesion. Blue: brain, or the head where the skull is there. "
        f"The patient's right is on the left.</p>"
        f"<div class=pictures>{''.join(_figure(one, inspection) for one in shown)}</div></html>\n"
    )


def write_inspection_page(inspection: Inspection, path: Path, *, title: str) -> None:
    """Write the page to a file, and the folder it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(inspection_page(inspection, title=title), encoding="utf-8")


def _figure(one: Examined, inspection: Inspection) -> str:
    subject = one.entry.subject
    label = inspection.classes[one.traits.label]
    split = inspection.splits.get(subject.patient_id, "")
    buffer = io.BytesIO()
    assert one.picture is not None
    Image.fromarray(_drawn(one.picture)).save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    caption = escape(f"{subject.subject_id} {label} {split}".strip())
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _drawn(picture: NDArray[np.float16]) -> NDArray[np.uint8]:
    """Return modalities side by side, (rows, columns, 3), front at the top, right on the left."""
    values = picture.astype(np.float32)
    lesion, brain = values[-2] == 1, values[-1] == 1
    panels = []
    for number, image in enumerate(values[:-2]):
        low, high = np.percentile(image[brain], (1, 99.5)) if brain.any() else (0.0, 1.0)
        low -= 0.15 * (high - low)  # so that dark tissue differs from air
        grey = (255 * (image - low) / max(high - low, 1e-6)).clip(0, 255)
        grey[(image == 0) & ~brain] = 0
        colour = np.repeat(grey[..., None], 3, axis=2)
        if number == 0:
            colour[_outline(brain)] = _BLUE
        colour[_outline(lesion)] = _RED
        panels += [colour.transpose(1, 0, 2)[::-1, ::-1], np.full((grey.shape[1], GAP, 3), 255)]
    return np.concatenate(panels[:-1], axis=1).astype(np.uint8)


def _outline(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels just outside of a region, so that nothing of it is hidden."""
    around = np.pad(region, 1)
    near = around[:-2, 1:-1] | around[2:, 1:-1] | around[1:-1, :-2] | around[1:-1, 2:]
    outline: NDArray[np.bool_] = near & ~region
    return outline
