"""Writes generated endoscopy without labels: a folder of frames per video, and the same videos as MP4."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
from tqdm import tqdm

from monai_ssl_transfer.data.phantoms import endoscopy_anatomy as anatomy
from monai_ssl_transfer.data.phantoms import endoscopy_lesions as lesions
from monai_ssl_transfer.data.phantoms.endoscopy_anatomy import Scene
from monai_ssl_transfer.data.phantoms.endoscopy_files import random_stream, write_photograph
from monai_ssl_transfer.data.phantoms.endoscopy_findings import find_scene
from monai_ssl_transfer.data.phantoms.endoscopy_picture import draw_processor, photograph
from monai_ssl_transfer.data.phantoms.endoscopy_views import way

RATE = 25  # pictures per second of the MP4
_PACE = 1.1  # mm per picture
_OTHERS = ("cecum", "retroflex-stomach", "pylorus", "z-line", "ulcerative-colitis-grade-2", "retroflex-rectum", "ileum")


def write_unlabelled(
    frames_folder: str | Path, videos_folder: str | Path, videos: int, frames: int, size: int = 256, seed: int = 0
) -> int:
    """Write unlabelled videos, two of three through a colon with or without polyps.

    Args:
        frames_folder: gets ``video-NNNN/frame_NNNNNN.jpg``.
        videos_folder: gets ``video-NNNN.mp4`` of the same frames.
        videos: how many.
        frames: of each video.
        size: rows and columns.
        seed: everything follows from it.

    Returns:
        how many frames were written.
    """
    frames_folder, videos_folder = Path(frames_folder), Path(videos_folder)
    for number in tqdm(range(videos), desc="unlabelled videos", unit="video"):
        rng = random_stream(seed, "video", number)
        images = video_frames(rng, number, frames, size)
        for index, image in enumerate(images):
            write_photograph(frames_folder / f"video-{number:04d}" / f"frame_{index:06d}.jpg", image, rng)
        write_mp4(videos_folder / f"video-{number:04d}.mp4", images)
    return videos * frames


def video_frames(rng: np.random.Generator, number: int, frames: int, size: int) -> np.ndarray:
    """The frames of one video: one patient, one tube, one way. uint8 (frames, size, size, 3)."""
    scene, pace = _scene(rng, number, frames)
    processor = draw_processor(rng, "octagon")
    cameras = way(rng, scene, frames, pace)
    return np.stack([photograph(scene, camera, processor, rng, size, size).image for camera in cameras])


def write_mp4(path: Path, images: np.ndarray) -> None:
    """Encode frames, uint8 (frames, rows, columns, 3), as H.264; an odd last row or column is left out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows, columns = (side // 2 * 2 for side in images.shape[1:3])
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=RATE, options={"crf": "18", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = columns, rows, "yuv420p"
        for image in images:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image[:rows, :columns]), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _scene(rng: np.random.Generator, number: int, frames: int) -> tuple[Scene, float]:
    if number % 3 == 2:
        return find_scene(_OTHERS[number // 3 % len(_OTHERS)], rng), 0.15
    patient = anatomy.draw_patient(rng)
    scene = anatomy.colon(rng, patient, length=110 + _PACE * frames)
    if rng.random() < 0.5:
        lesions.residue(rng, scene, float(rng.uniform(0.05, 0.6)))
    for _ in range(rng.poisson(0.7 + 0.02 * frames)):
        lesions.add_polyp(rng, scene, farthest=40 + _PACE * frames)
    scene.wall.finish()
    return scene, _PACE
