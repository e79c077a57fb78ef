"""The app folder of MONAI Label: main.py, working copies of bundles, and what the app was started with."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from monai.bundle import ConfigParser

from monai_ssl_transfer.durable import write_durably
from monai_ssl_transfer.errors import ExportError, LabelError
from monai_ssl_transfer.export.archive import publish
from monai_ssl_transfer.export.configs import BUNDLE_ROOT, merged_inference, merged_train
from monai_ssl_transfer.installation import find_overlay, project_folder

MODELS = "model"
MAIN = "main.py"
SETTINGS = "label_app.json"
_FORMAT = 1
_MAIN_TEXT = """\"\"\"MONAI Label starts here; the app itself is in monai_ssl_transfer.label.app.\"\"\"
from monai_ssl_transfer.label.app import SSLTransferApp as SSLTransferApp
"""
_OF_A_BUNDLE = ("configs", "models", "scripts", "docs", "encoder", "LICENSE")
"""What is copied of a bundle's folder; the rest was written by runs in it."""


@dataclass(frozen=True)
class AppSettings:
    """What an app folder remembers, in ``label_app.json``.

    Args:
        encoder: absolute path of the pretrained encoder that training and embeddings start from; "" is none.
        conf: further settings for MONAI Label, as ``--conf`` would give them.
    """

    encoder: str = ""
    conf: dict[str, str] = field(default_factory=dict)


def read_settings(app: Path) -> AppSettings:
    """Settings of an app folder; one without ``label_app.json`` has the defaults.

    Args:
        app: the app folder.

    Raises:
        LabelError: the file is damaged or of another version.
    """
    file = app / SETTINGS
    if not file.is_file():
        return AppSettings()
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        known = content.pop("format") == _FORMAT
        if known:
            return AppSettings(**content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LabelError(f"{file} is damaged ({error}): remove it and start `ssl-transfer label` again.") from error
    raise LabelError(f"{file} is of another version of monai-ssl-transfer: start with a new --app folder.")


def prepare_app(app: str | Path, bundles: Sequence[str], encoder: str | Path | None = None) -> dict[str, str]:
    """Make an app folder, or add bundles to one; what is in it already is kept.

    Args:
        app: the folder.
        bundles: each the name of a shipped bundle, a bundle's folder, or an exported zip; of the first two with
            overlays, "NAME+OVERLAY+OVERLAY", such as a smaller network.
        encoder: encoder file that training and embeddings start from; None keeps the one of the folder.

    Returns:
        What became of each bundle, by its name: "new" or "kept".

    Raises:
        LabelError: a bundle or the encoder is not there, or the folder cannot be written or is something else.
    """
    app = Path(app).resolve()
    sources = _sources(bundles)
    if encoder is not None and not Path(encoder).is_file():
        raise LabelError(f"there is no encoder {encoder}: give encoder.safetensors or another checkpoint to --encoder.")
    if not app.exists():
        _publish(
            app, lambda folder: _fill_app(folder, sources, AppSettings(str(Path(encoder).resolve()) if encoder else ""))
        )
        return dict.fromkeys(sources, "new")
    if not (app / MAIN).is_file() and any(app.iterdir() if app.is_dir() else [app]):
        raise LabelError(f"{app} is there and is no app folder (it has no {MAIN}): choose another --app.")
    settings = read_settings(app)
    if encoder is not None:
        settings = AppSettings(str(Path(encoder).resolve()), settings.conf)
    outcome = {}
    for name, source in sources.items():
        target = app / MODELS / name
        outcome[name] = "kept" if target.is_dir() else "new"
        if not target.is_dir():
            _publish(target, lambda folder, name=name, source=source: _copy_bundle(name, source, folder))
    _write_settings(app, settings)
    return outcome


def served_bundles(app: Path) -> dict[str, Path]:
    """The bundles of an app folder, by name.

    Args:
        app: the app folder.

    Raises:
        LabelError: it has none.
    """
    folders = sorted((app / MODELS).iterdir()) if (app / MODELS).is_dir() else []
    found = {one.name: one for one in folders if (one / "configs").is_dir() and not one.name.startswith(".")}
    if not found:
        raise LabelError(f"{app / MODELS} has no bundle: add one with `ssl-transfer label --bundles NAME --app {app}`.")
    return found


@dataclass(frozen=True)
class _Source:
    """Where a bundle comes from, and the overlays that its working copy is made with."""

    path: Path
    overlays: tuple[Path, ...] = ()


def _sources(bundles: Sequence[str]) -> dict[str, _Source]:
    if not bundles:
        raise LabelError("no bundle is named: give --bundles, such as endoscopy_polyp_segmentation.")
    sources: dict[str, _Source] = {}
    for given in bundles:
        first, *overlays = [given] if Path(given).exists() else given.split("+")
        name, path = _source(first)
        source = _Source(path, tuple(_overlay(one) for one in overlays))
        if sources.get(name, source) != source:
            raise LabelError(f"two of --bundles are called {name}: name each bundle once.")
        sources[name] = source
    return sources


def _overlay(given: str) -> Path:
    if found := find_overlay(given):
        return found.resolve()
    raise LabelError(f"there is no overlay {given}: give NAME+OVERLAY, such as +configs/networks/unet_resnet18.json.")


def _source(given: str) -> tuple[str, Path]:
    """Name and place of a bundle; a path wins over a shipped name only where it is a bundle."""
    path, shipped = Path(given), project_folder() / "bundles"
    if path.suffix == ".zip" and path.is_file():
        return _name_in(path), path.resolve()
    if (path / "configs" / "inference.json").is_file():
        return path.resolve().name, path.resolve()
    if len(path.parts) == 1 and (shipped / given / "configs" / "inference.json").is_file():
        if given.endswith("_ssl_pretraining"):
            raise LabelError(f"{given} makes encoders and labels nothing: give its result to --encoder instead.")
        return given, shipped / given
    known = ", ".join(sorted(one.name for one in shipped.iterdir() if not one.name.endswith("_ssl_pretraining")))
    raise LabelError(f"{given} is no bundle: give an exported folder or zip, or one of {known}.")


def _name_in(archive: Path) -> str:
    """The base folder of a zip, whose every entry must lie below it."""
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = [PurePosixPath(one) for one in opened.namelist()]
    except (OSError, zipfile.BadZipFile) as error:
        raise LabelError(f"{archive} cannot be read ({error}): export the bundle again with --zip.") from error
    bases = {one.parts[0] for one in entries if one.parts}
    outside = any(one.is_absolute() or ".." in one.parts or "\\" in str(one) for one in entries)
    if len(bases) != 1 or outside or PurePosixPath(*bases, "configs", "inference.json") not in entries:
        raise LabelError(f"{archive} holds no single bundle: export it with `ssl-transfer bundles export --zip`.")
    return bases.pop()


def _publish(target: Path, fill: Any) -> None:
    try:
        publish(target, fill, option="--app")
    except ExportError as error:
        raise LabelError(str(error)) from error


def _fill_app(folder: Path, sources: Mapping[str, _Source], settings: AppSettings) -> None:
    for name, source in sources.items():
        target = folder / MODELS / name
        target.mkdir(parents=True)
        _copy_bundle(name, source, target)
    (folder / MAIN).write_text(_MAIN_TEXT, encoding="utf-8")
    _write_settings(folder, settings)


def _write_settings(app: Path, settings: AppSettings) -> None:
    text = json.dumps({"format": _FORMAT, **asdict(settings)}, indent=2) + "\n"
    try:
        write_durably(app / SETTINGS, lambda file: file.write(text.encode()))
        if not (app / MAIN).is_file():
            write_durably(app / MAIN, lambda file: file.write(_MAIN_TEXT.encode()))
    except OSError as error:
        raise LabelError(f"{app} cannot be written ({error.strerror}): choose another --app.") from error


def _copy_bundle(name: str, bundle: _Source, folder: Path) -> None:
    """A working copy that depends on neither the place it came from nor the working folder."""
    source = bundle.path
    if source.suffix == ".zip":
        with zipfile.ZipFile(source) as opened:
            for entry in opened.infolist():
                below = PurePosixPath(entry.filename).parts[1:]
                if not below or entry.is_dir():
                    continue
                target = folder.joinpath(*below)
                target.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(entry) as packed, target.open("wb") as file:
                    shutil.copyfileobj(packed, file)
    else:
        for part in _OF_A_BUNDLE:  # not copytree, whose error does not say that the disk is full
            whole = [source / part, *(source / part).rglob("*")]
            for one in whole:
                if one.is_file() and "__pycache__" not in one.parts:
                    target = folder / one.relative_to(source)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(one, target)
    _make_relocatable(name, folder / "configs", bundle.overlays)
    (folder / "models").mkdir(exist_ok=True)


def _make_relocatable(name: str, configs: Path, overlays: Sequence[Path]) -> None:
    """Let the configurations find their own folder, as an export does; an exported bundle stays as it is."""
    inference = ConfigParser.load_config_file(configs / "inference.json")
    if inference.get("bundle_root") == BUNDLE_ROOT or not (configs / "train.json").is_file():
        if overlays:
            raise LabelError(f"bundle {name} was exported with its settings: leave +{overlays[0].name} out.")
        return
    try:
        parser = ConfigParser()
        parser.read_config([str(configs / "train.json"), *map(str, overlays)])
        parser.resolve_macro_and_relative_ids()
        config = {key: value for key, value in parser.get().items() if key != ConfigParser.meta_key}
        train = merged_train(configs, config)
        inference = merged_inference(configs, train)
    except ExportError as error:
        raise LabelError(f"bundle {name} cannot be copied: {error}") from error
    for file, content in (("train", train), ("inference", inference)):
        text = json.dumps(content, indent=4, ensure_ascii=False) + "\n"
        (configs / f"{file}.json").write_text(text, encoding="utf-8")
