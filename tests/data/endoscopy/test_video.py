"""Videos: which frames are taken, which way up, what is said of broken ones, and how much memory a long one takes."""

from __future__ import annotations

import json
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from monai_ssl_transfer.data.endoscopy import ingest_worker
from monai_ssl_transfer.data.endoscopy.ingest import ingest_frames
from monai_ssl_transfer.data.endoscopy.video import DamagedVideoError, sample_video
from monai_ssl_transfer.data.redaction import private_folder
from monai_ssl_transfer.data.store import SliceStore
from monai_ssl_transfer.errors import DataError


def scene(number: int, shape: tuple[int, int] = (48, 64)) -> np.ndarray:
    """Blobs that are other ones for each number; the grey of the top left corner tells the number."""
    noise = np.random.default_rng(number).uniform(0, 255, (6, 8)).astype(np.uint8)
    light = np.asarray(Image.fromarray(noise).resize((shape[1], shape[0]), Image.Resampling.BICUBIC), np.float32)
    frame = (light[..., None] * [0.8, 0.45, 0.35] + [45, 20, 15]).astype(np.uint8)
    frame[:16, :16] = 8 * (number % 30)
    return frame


def write_video(
    path: Path,
    frames: Iterable[np.ndarray],
    shape: tuple[int, int] = (48, 64),
    aspect: Fraction | None = None,
    **options: str,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width = shape
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def corner(frame: np.ndarray) -> float:
    return float(frame[2:12, 2:12].mean() / 8)


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv"])
def test_every_nth_frame_is_taken(tmp_path: Path, suffix: str) -> None:
    video = write_video(tmp_path / f"v{suffix}", [scene(i) for i in range(29)])
    samples = list(sample_video(video, 7))
    assert [sample.number for sample in samples] == [0, 7, 14, 21, 28]
    assert [corner(sample.pixels) for sample in samples] == pytest.approx([0, 7, 14, 21, 28], abs=1.2)
    assert [sample.seconds for sample in samples] == pytest.approx([n / 25 for n in (0, 7, 14, 21, 28)], abs=0.05)
    assert np.abs(samples[1].pixels.astype(int) - scene(7)).mean() < 12


# Matrices of the track header (ISO/IEC 14496-12, 8.3.2) as cameras write them: a, b, c, d in 16.16 fixed point.
MATRICES = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}


@pytest.mark.parametrize("clockwise", [90, 180, 270])
def test_rotation_of_the_file_is_carried_out(tmp_path: Path, clockwise: int) -> None:
    video = write_video(tmp_path / "v.mp4", [scene(20)] * 3)
    data = video.read_bytes()
    header = data.index(b"tkhd")

    def matrix(a: int, b: int, c: int, d: int) -> bytes:
        rows = (a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
        return b"".join(value.to_bytes(4, "big", signed=True) for value in rows)

    at = data.index(matrix(1, 0, 0, 1), header)
    video.write_bytes(data[:at] + matrix(*MATRICES[clockwise]) + data[at + 36 :])
    frame = next(iter(sample_video(video, 1))).pixels
    reference = np.rot90(scene(20), -clockwise // 90)
    assert frame.shape == reference.shape
    assert np.abs(frame.astype(int) - reference).mean() < 12


def test_pixels_become_square(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mkv", [scene(3)] * 2, aspect=Fraction(16, 11))
    assert next(iter(sample_video(video, 1))).pixels.shape == (48, 93, 3)


def test_broken_videos(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.avi", [scene(i) for i in range(60)])
    data = whole.read_bytes()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(data[: len(data) // 2])
    read = []
    with pytest.raises(DamagedVideoError, match=r"cut.avi is damaged .* frames could be read") as caught:
        for sample in sample_video(cut, 1):
            read.append(sample.number)
    assert 10 < caught.value.frames < 50 and read == list(range(caught.value.frames))
    long = write_video(tmp_path / "long.mkv", [scene(i) for i in range(120)])
    (tmp_path / "cut.mkv").write_bytes(long.read_bytes()[: long.stat().st_size // 2])
    with pytest.raises(DamagedVideoError, match=r"it ends at 2.\d of 4.8 seconds"):
        list(sample_video(tmp_path / "cut.mkv", 1))
    assert len(list(sample_video(long, 1))) == 120
    film = write_video(tmp_path / "film.mp4", [scene(i) for i in range(60)]).read_bytes()
    for name, content in (("text.mp4", b"hello"), ("unfinished.mp4", film[: len(film) // 2])):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name} .*restore it or remove it"):
            list(sample_video(tmp_path / name, 1))


def test_a_part_that_an_edit_list_shows_is_no_damage(tmp_path: Path) -> None:
    """As programs write it that trim a film without coding it anew: all 60 frames are there, 40 are to be shown."""
    film = write_video(tmp_path / "film.mp4", [scene(i) for i in range(60)])
    data = film.read_bytes()
    second = int.from_bytes(data[(at := data.index(b"mdhd") + 16) : at + 4], "big")
    edit = data.index(b"elst") + 12  # one entry: duration in milliseconds, beginning in units of the stream
    film.write_bytes(data[:edit] + struct.pack(">Ii", 1600, int(0.8 * second)) + data[edit + 8 :])
    assert len(list(sample_video(film, 1))) == 40


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_film_that_was_not_copied_to_its_end(tmp_path: Path, share: float) -> None:
    """With its header in front it can be opened, and tells how long it is."""
    data = write_video(tmp_path / "film.mp4", [scene(i) for i in range(60)], movflags="faststart").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DamagedVideoError, match=r"cut\.mp4 is damaged") as caught:
        list(sample_video(tmp_path / "cut.mp4", 1))
    assert 60 * share - 15 < caught.value.frames < 60 * share + 5


def lines(store: Path) -> list[dict]:
    return [json.loads(line) for line in (store / "ingest_files.jsonl").read_text().splitlines()]


def ingest(source: Path, store: Path, **options: object):
    return ingest_frames(source, store, **{"workers": 1, "every": 1, "progress": False, **options})  # type: ignore[arg-type]


def test_videos_in_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest_worker, "CHUNK_FRAMES", 8)
    write_video(tmp_path / "in" / "a.mp4", [scene(i // 2) for i in range(40)])  # every frame twice
    whole = write_video(tmp_path / "in" / "b.avi", [scene(100 + i) for i in range(20)])
    shutil.copy(whole, tmp_path / "in" / "copy.avi")
    cut = tmp_path / "in" / "cut.avi"
    other = write_video(tmp_path / "x.avi", [scene(200 + i) for i in range(20)]).read_bytes()
    cut.write_bytes(other[: len(other) * 2 // 3])
    report = ingest(tmp_path / "in", tmp_path / "store")
    store = SliceStore(tmp_path / "store")
    kinds = [store.series(i).kind for i in range(store.series_count)]
    assert set(kinds) == {"video"} and max(len(store.series_range(i)) for i in range(store.series_count)) == 8
    found = lines(tmp_path / "store")
    assert [line["status"] for line in found] == ["kept", "kept", "duplicate", "kept"]
    assert (found[0]["frames"], found[0]["near_duplicates"], found[1]["frames"]) == (20, 20, 20)
    assert found[3]["code"] == "damaged" and f"{found[3]['frames']} frames could be read" in found[3]["reason"]
    assert 1 < found[3]["frames"] < 20
    assert report.groups == 3 and len(store) == 40 + found[3]["frames"]
    assert report.near_duplicates == 20
    content, account = store.content_hash, lines(tmp_path / "store")
    assert ingest(tmp_path / "in", tmp_path / "store").added_frames == 0
    assert SliceStore(tmp_path / "store").content_hash == content and lines(tmp_path / "store") == account
    assert not (private_folder(tmp_path / "store") / "spool").exists()


def test_a_video_that_is_stored_cannot_be_left_out_any_more(tmp_path: Path) -> None:
    write_video(tmp_path / "in" / "a.mp4", [scene(i) for i in range(3)])
    write_video(tmp_path / "in" / "b.mp4", [scene(10 + i) for i in range(3)])
    ingest(tmp_path / "in" / "b.mp4", tmp_path / "store")
    (tmp_path / "test.txt").write_text("a\n")
    assert ingest(tmp_path / "in", tmp_path / "store", leave_out=tmp_path / "test.txt").added_frames == 0
    (tmp_path / "test.txt").write_text("a\nb\n")
    with pytest.raises(DataError, match=r"b\.mp4 shall be left out but is in .*store already"):
        ingest(tmp_path / "in", tmp_path / "store", leave_out=tmp_path / "test.txt")


def test_a_video_killed_in_the_middle_is_finished(tmp_path: Path) -> None:
    """SIGKILL between two segments of one video, then the same command, against a run that nothing disturbed."""
    write_video(tmp_path / "in" / "a.mp4", [scene(i) for i in range(90)])
    program = f"""
import os, signal
from monai_ssl_transfer.data.endoscopy import ingest, ingest_worker
ingest_worker.CHUNK_FRAMES = 8
append = ingest.SliceStoreWriter.append
def counted(self, *rest):
    if self._series_count == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return append(self, *rest)
ingest.SliceStoreWriter.append = counted
ingest.ingest_frames({str(tmp_path / "in")!r}, {str(tmp_path / "store")!r}, workers=1, every=1, progress=False)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    assert len(SliceStore(tmp_path / "store")) == 24
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest_worker, "CHUNK_FRAMES", 8)
        ingest(tmp_path / "in", tmp_path / "store")
        (tmp_path / "whole.private").mkdir()
        shutil.copy(private_folder(tmp_path / "store") / "salt", private_folder(tmp_path / "whole") / "salt")
        ingest(tmp_path / "in", tmp_path / "whole")
    assert SliceStore(tmp_path / "store").content_hash == SliceStore(tmp_path / "whole").content_hash
    assert lines(tmp_path / "store") == lines(tmp_path / "whole")
    assert lines(tmp_path / "store")[0]["frames"] == 90


def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    """Peak of a process that ingests every frame, once its buffers are full: three times the frames take no more."""
    peaks = []
    for length in (900, 2700):
        source = tmp_path / str(length)
        frames = [scene(i, (240, 320)) for i in range(30)]
        write_video(source / "v.mp4", (np.roll(frames[i % 30], i, 1) for i in range(length)), (240, 320))
        program = f"""
from monai_ssl_transfer.data.endoscopy.ingest import ingest_frames
report = ingest_frames({str(source)!r}, {str(tmp_path / "store") + str(length)!r}, workers=1, every=1, progress=False,
                       duplicate_threshold=None)
from pathlib import Path
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(report.frames, peak.split()[1])
"""
        out = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
        stored, peak = map(int, out.split())
        assert stored == length
        peaks.append(peak / 1024)
    size = sum(file.stat().st_size for file in (tmp_path / "store2700").glob("shard-*")) / 2**20
    assert peaks[1] - peaks[0] < size / 4
