"""A folder of images and labels that a client cannot leave, and whose files are whole at every instant."""

from __future__ import annotations

import logging
import shutil
import time
from pathlib import Path
from typing import Any

from monailabel.datastore.local import DataModel, ImageLabelModel
from watchdog.events import FileSystemEvent

from monai_ssl_transfer.durable import write_durably
from monai_ssl_transfer.errors import LabelError
from monai_ssl_transfer.label.image_files import (
    PHOTOGRAPH,
    RECORD,
    VOLUME,
    check_label,
    check_readable,
    extension,
    file_facts,
    split_name,
)
from monai_ssl_transfer.label.shared_list import SharedListDatastore

logger = logging.getLogger(__name__)

IMAGES = tuple(f"*{one}" for one in (*PHOTOGRAPH, *VOLUME))
LABELS = (*IMAGES, *(f"*{one}" for one in RECORD))
_LONGEST_NAME = 200


class SafeDatastore(SharedListDatastore):
    """The stock flat folder of images with ``labels/<tag>/`` beside them, made safe.

    Names that clients send never leave the folder; files and the list of them are replaced in one step; several
    processes (the server, a training, a batch inference) add to the list without losing what another added; a label
    is checked against its image before it replaces one; file names may have any case and further types.

    Args:
        folder: of the images.
        auto_reload: watch it for files that other programs add or remove.
    """

    def __init__(self, folder: str, auto_reload: bool = False) -> None:
        self.same_id: dict[str, list[str]] = {}
        super().__init__(folder, LABELS, auto_reload)
        self._reconcile_datastore()
        if auto_reload and not self.read_only:
            self._handler.on_moved = self._on_any_event  # how a file appears that was written under another name

    # ---- names

    def _to_id(self, file: str) -> tuple[str, str]:
        return split_name(file)

    def _list_files(self, path: str, patterns: Any) -> dict[str, str]:
        """Files of the known types; no JSON among the images, where the list of files is one."""
        images = Path(path).resolve() == Path(self._datastore.image_path()).resolve()
        known = {*PHOTOGRAPH, *VOLUME} if images else {*PHOTOGRAPH, *VOLUME, *RECORD}
        names = sorted(one.name for one in Path(path).iterdir()) if Path(path).is_dir() else []
        return {one: one for one in names if extension(one).lower() in known and not one.startswith(".")}

    # ---- what is in the folder

    def _reconcile_datastore(self) -> None:
        with self._locked():
            self._note_same_ids()
            if self.read_only:
                self._read_list()
                self._add_non_existing_images()
                for tag in self._label_folders():
                    self._add_non_existing_labels(tag)
            else:
                super()._reconcile_datastore()

    def _label_folders(self) -> list[str]:
        labels = Path(self._datastore.label_path(None))
        return sorted(one.name for one in labels.iterdir() if one.is_dir()) if labels.is_dir() else []

    def _note_same_ids(self) -> None:
        """Two files of one id cannot both be images: which one is used is said, not guessed by the reader."""
        names: dict[str, list[str]] = {}
        for file in self._list_files(self._datastore.image_path(), None):
            names.setdefault(self._to_id(file)[0], []).append(file)
        doubled = {one: files for one, files in names.items() if len(files) > 1}
        for one in doubled.keys() - self.same_id.keys():
            logger.warning("%s: %s have the same id '%s'; rename all but one", self._folder, doubled[one], one)
        self.same_id = doubled

    def status(self) -> dict[str, Any]:
        """Counts for ``/info``, and what a person should know of the folder."""
        remarks = {
            one: f"{' and '.join(files)} have the same id, and only {self._used_file(one)} is used: rename the other."
            for one, files in self.same_id.items()
        }
        more = {"read_only": self.read_only, **({"same_id": remarks} if remarks else {})}
        return {**super().status(), **more}

    def _used_file(self, image_id: str) -> str:
        known = self._datastore.objects.get(image_id)
        return image_id + known.image.ext if known else "none"

    def _on_any_event(self, event: FileSystemEvent) -> None:
        """Something came or went; what this process wrote itself is in the list already."""
        try:
            self.refresh()
        except (OSError, LabelError):
            logger.exception("%s could not be read again", self._folder)

    def _on_modify_event(self, event: FileSystemEvent) -> None:
        if event.src_path == self._datastore_config_path:
            self._on_any_event(event)

    # ---- images

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Take an image in.

        Args:
            image_id: its name without extension; "" takes the file's.
            image_filename: file to copy.
            image_info: kept with it.

        Returns:
            The id.

        Raises:
            LabelError: a name that leaves the folder, a file of no known type or damaged, an id that is taken.
        """
        source = Path(image_filename)
        own, ext = self._to_id(source.name)
        image_id = _checked_name(image_id or own, "image")
        if not ext or ext.lower() in RECORD:
            raise LabelError(f"image {image_id} is of no type that is read here: send PNG, JPEG or NIfTI.", 415)
        check_readable(source, f"image {image_id}")
        target = Path(self._datastore.image_path()) / f"{image_id}{ext}"

        def change() -> None:
            if image_id in self._datastore.objects:
                raise LabelError(f"there is an image {image_id} already: remove it or give another id.", 409)
            _copy_durably(source, target)
            info = {**(image_info or {}), "ts": int(time.time()), "name": target.name}
            self._datastore.objects[image_id] = ImageLabelModel(image=DataModel(info=info, ext=ext))

        self._change(change, target)
        return image_id

    def remove_image(self, image_id: str) -> None:
        """Remove an image and its labels.

        Raises:
            LabelError: no such image, or the folder cannot be written.
        """
        known = self._object(image_id)

        def change() -> None:
            for tag in list(known.labels):
                Path(self.get_label_uri(image_id, tag)).unlink(missing_ok=True)
            Path(self.get_image_uri(image_id)).unlink(missing_ok=True)
            self._datastore.objects.pop(image_id, None)

        self._change(change, self._folder)

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        """Keep facts with an image.

        Raises:
            LabelError: no such image, or the folder cannot be written.
        """
        self._object(image_id)
        self._change(lambda: self._object(image_id).image.info.update(info), self._folder)

    def _object(self, image_id: str) -> ImageLabelModel:
        known = self._datastore.objects.get(image_id)
        if known is None:
            raise LabelError(
                f"there is no image {image_id!r} in the datastore: GET /datastore/?output=all lists them.", 404
            )
        return known

    # ---- labels

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Take in a label, in place of an earlier one of the same kind and tag.

        Args:
            image_id: of its image.
            label_filename: file to copy.
            label_tag: such as "final".
            label_info: kept with it.

        Returns:
            The label's id, which is its image's.

        Raises:
            LabelError: no such image, a tag that leaves the folder, or a label that does not fit its image.
        """
        tag = _checked_name(str(getattr(label_tag, "value", label_tag)), "tag")
        known, source = self._object(image_id), Path(label_filename)
        ext = extension(source.name)
        shown = f"label of {image_id}"
        image = file_facts(Path(self.get_image_uri(image_id)), f"image {image_id}")
        check_label(source, image, shown)
        _refuse_other_kind(known.labels.get(tag), ext, shown, tag)
        target = Path(self._datastore.label_path(tag)) / f"{image_id}{ext}"

        def change() -> None:
            labels = self._object(image_id).labels
            _refuse_other_kind(labels.get(tag), ext, shown, tag)
            earlier = self.get_label_uri(image_id, tag)
            _copy_durably(source, target)
            info = {**(label_info or {}), "ts": int(time.time()), "name": target.name}
            labels[tag] = DataModel(info=info, ext=ext)
            self._update_datastore_file()
            if earlier and Path(earlier) != target.resolve():
                Path(earlier).unlink(missing_ok=True)

        self._change(change, target)
        return image_id

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Remove a label.

        Raises:
            LabelError: no such label, or the folder cannot be written.
        """
        self._label(label_id, label_tag)

        def change() -> None:
            Path(self.get_label_uri(label_id, label_tag)).unlink(missing_ok=True)
            self._object(label_id).labels.pop(label_tag, None)

        self._change(change, self._folder)

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        """Keep facts with a label.

        Raises:
            LabelError: no such label, or the folder cannot be written.
        """
        self._label(label_id, label_tag)
        self._change(lambda: self._label(label_id, label_tag).info.update(info), self._folder)

    def _label(self, label_id: str, label_tag: str) -> DataModel:
        label: DataModel | None = self._datastore.label(label_id, label_tag)
        if label is None:
            raise LabelError(f"there is no label {label_id!r} with the tag {label_tag!r} in the datastore.", 404)
        return label

    def get_dataset_archive(self, limit_cases: int | None) -> str:
        """A zip of the labelled images.

        Raises:
            LabelError: nothing is labelled.
        """
        if not self.datalist():
            raise LabelError("no image has a final label yet: label one first.", 404)
        archive: str = super().get_dataset_archive(limit_cases)
        return archive


def _checked_name(name: str, what: str) -> str:
    """A name of one file, in this folder and on any system."""
    bad = not name or name.startswith(".") or len(name) > _LONGEST_NAME or name != name.strip()
    if bad or not name.isprintable() or any(one in name for one in '/\\:*?"<>|'):
        raise LabelError(f"{what} {name!r} cannot be the name of a file: use letters, digits, '-', '_' and '.'.")
    return name


def _refuse_other_kind(earlier: DataModel | None, ext: str, shown: str, tag: str) -> None:
    """A mask and a class would be two labels, and an image has room for one per tag."""
    if earlier is not None and (earlier.ext.lower() in RECORD) != (ext.lower() in RECORD):
        raise LabelError(
            f"{shown} with the tag {tag} is {earlier.ext} and would be lost to {ext}: remove it first, or keep labels "
            "of another kind in another studies folder.", 409
        )  # fmt: skip


def _copy_durably(source: Path, target: Path) -> None:
    with source.open("rb") as file:
        write_durably(target, lambda stream: shutil.copyfileobj(file, stream, 1 << 20))
