"""The viewer of MONAI Label's wheel (OHIF) in a real browser: a study opened, segmented from the panel, and shown.

With SSL_TRANSFER_LABEL_PICTURES=APP (app folder with a trained ct_liver_segmentation) the pictures of docs/label.md are
written to docs/pictures; otherwise a network with random weights serves, and the pictures are only looked at.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("monailabel", reason="needs the label extra")

import SimpleITK as sitk  # noqa: N813
from browser import BROWSER, Page, browser_page
from orthanc import MISSING, ORTHANC, PLUGIN, orthanc
from PIL import Image
from tiny_label import LIVER, ROOT, LabelServer, label_server

from monai_ssl_transfer.data.phantoms.ct_scan import Phantom, PhantomOptions, make_ct_phantom

pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="needs Chromium: apt-get install chromium"),
    pytest.mark.skipif(not (ORTHANC and PLUGIN.is_file()), reason=MISSING),
]
APP = os.environ.get("SSL_TRANSFER_LABEL_PICTURES", "")
PICTURES = ROOT / "docs" / "pictures"
BUTTON = "[...document.querySelectorAll('.modelSelector button')].find(e => e.title === 'Run Segmentation')"
CANVAS = "document.querySelector('.cornerstone-canvas')"


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    size, slices = (192, 48) if APP else (64, 12)
    return make_ct_phantom(101, PhantomOptions(size=size, slices=slices, tumour_share=1.0))


@pytest.fixture(scope="module")
def opened(
    phantom: Phantom, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[LabelServer, Page, str]]:
    """A server over DICOMweb, and its viewer with the study open; the UID of the series."""
    folder = tmp_path_factory.mktemp("viewer")
    app = Path(APP) if APP else request.getfixturevalue("label_app")
    with orthanc(folder / "orthanc") as archive:
        study, series = archive.add(phantom, folder / "dicom")
        cache = {"MONAI_LABEL_DICOMWEB_CACHE_PATH": str(folder / "cache")}
        with label_server(app, archive.url, **cache) as server, browser_page(folder / "profile", 1440, 640) as page:
            page.call("Page.navigate", url=f"{server.url}/ohif/monai-label?StudyInstanceUIDs={study}")
            page.wait(f"{CANVAS} && document.querySelector('#monailabelServerURL') !== null")
            yield server, page, series


def drawn(page: Page, file: Path) -> np.ndarray:
    """The part of the window that shows the slice, (rows, columns, 3)."""
    box = page.run(f"(e => {{ const b = e.getBoundingClientRect(); return [b.x, b.y, b.right, b.bottom] }})({CANVAS})")
    with Image.open(page.picture(file)) as picture:
        return np.asarray(picture.convert("RGB").crop([int(one) for one in box]), int)


def kept(file: Path) -> Path:
    """Put a picture into the documentation, if that was asked for."""
    if APP:
        with Image.open(file) as picture:
            picture.convert("RGB").save(PICTURES / file.name, optimize=True)
    return file


def colourful(shown: np.ndarray) -> np.ndarray:
    """Where something else than grey is shown, (rows, columns)."""
    return np.ptp(shown, axis=-1) > 40


def test_the_viewer_shows_the_study_and_segments_it_from_the_panel(
    opened: tuple[LabelServer, Page, str], phantom: Phantom, tmp_path: Path
) -> None:
    server, page, series = opened
    page.click_on("[...document.querySelectorAll('button')].find(e => e.innerText === 'Confirm and Hide')")
    before = page.wait_for_pixels(lambda: drawn(page, tmp_path / "label_study.png"))
    assert before.std() > 20, "a slice of CT has black and white"
    kept(tmp_path / "label_study.png")
    page.run("document.querySelector('#monailabelServerURL').value = ''")
    page.click_on("document.querySelector('#monailabelServerURL')")
    page.call("Input.insertText", text=server.url + "/")
    page.click_on("document.querySelector('.settingsTable .actionButton')")
    page.wait(f"!!({BUTTON})")
    page.wait("document.body.innerText.includes('liver')")
    page.click_on(BUTTON)
    page.wait("document.body.innerText.includes('Running Segmentation - Successful')", 180)
    after = page.wait_for_pixels(
        lambda: drawn(page, tmp_path / "label_segmented.png"), lambda one: colourful(one).any()
    )
    kept(tmp_path / "label_segmented.png")
    assert colourful(after).sum() > 50 + colourful(before).sum()
    mask = server.client.infer(LIVER, series, {})[0]
    assert set(np.unique(sitk.GetArrayFromImage(sitk.ReadImage(mask)))) <= {0, 1, 2}
