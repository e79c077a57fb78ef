"""The configurations of an exported bundle: the bundle's own with the run's settings, and no paths of a machine."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from monai_ssl_transfer.errors import ExportError
from monai_ssl_transfer.export.source_closure import PACKAGE

BUNDLE_ROOT = (
    "$next((str(one.frame.f_locals['self'].config_root_path.resolve().parent) for one in inspect.stack(0) "
    "if 'config_root_path' in getattr(one.frame.f_locals.get('self'), '__dict__', ())), '.')"
)
"""The folder of the configuration that is being run, so that neither ``--bundle_root`` nor the working folder matters.

MONAI tells a configuration nothing of its own place, but its ``ConfigWorkflow``, which is among the callers of whatever
a configuration computes, knows it. A bare ``ConfigParser`` (``ckpt_export``) gives the working folder.
"""
_OF_THE_MACHINE = ("device", "num_workers", "resume")
_A_PLACE = ("_dir", "_file", "_csv", "_run", "_root", "_weights", "_store")
"""How the settings' names end that hold a file or folder of somebody's machine."""
_OF_THE_DATA = ("train_cases", "validation_cases", "test_cases", "test_groups", "validation_groups")
"""Names of cases: they belong to somebody's copy of a data set and may name patients."""
_OF_INFERENCE = (
    "_desc_", "imports", "image_key", "volume_root", "network", "preprocessing", "dataset", "dataloader", "inferer",
    "postprocessing", "handlers", "evaluator", "initialize", "run", "batch_size", "photographs", "cases", "loaded",
)  # fmt: skip
"""What inference.json has of its own, whatever the run."""
_TRAINED = "$@bundle_root if cases_are_listed() else os.path.join(@bundle_root, 'training')"
"""Training again leaves the model alone, except in a label server, which looks for what it has trained in `models`."""
_ASKS = "$from monai_ssl_transfer.engines.records.listed_cases import cases_are_listed"
_COMPUTED = ("hyperkvasir.class_names", "class_record.class_names", "windows.channels_count")
"""Functions whose result is a plain value of the run, which is written in their place."""
_KEEP = "$keep_config(@output_dir)"
_ENCODER = "$initialise_encoder(@network_def, @encoder_weights"
"""How the line starts that loads the encoder; what follows depends on the bundle."""
_PATH = re.compile(
    r"(?<![\w@.$}:/])(~?/[\w.-]+/|[A-Za-z]:[\\/])"  # somewhere in a text
    r"|^(~?/[\w.-]|\\\\\w|\.\.?[\\/]|~[\\/])"  # a text that begins as one
    r"|['\"](~?/[\w.-]|\\\\+\w|\.\.?[\\/]|~[\\/])"  # or one that an expression quotes
)
_RELATIVE = re.compile(r"[\w.~ -]+(?:[\\/][\w.~ -]+)+[\\/]?")
_WEB = re.compile(r"https?://\S+")


def _of_the_machine(name: str) -> bool:
    return name in _OF_THE_MACHINE or name.endswith(_A_PLACE)


def merged_train(source: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """The bundle's ``train.json`` as the run used it.

    Args:
        source: ``configs`` of the bundle that was run.
        config: merged configuration of the run.

    Raises:
        ExportError: a path of this machine stands where no default can take its place.
    """
    original = _original(source)
    merged = _one_process(copy.deepcopy(dict(config)), original, source)
    _without_adaptation(merged, original)
    for name in {*merged, *original}:
        place = _of_the_machine(name) and not isinstance(merged.get(name), list | dict)  # class_weights are numbers
        if place or name in _OF_THE_DATA:
            merged[name] = original.get(name)
    merged["_desc_"] = original.get("_desc_", {})
    merged |= {"bundle_root": BUNDLE_ROOT, "imports": ["$import inspect", *merged["imports"]]}
    if merged.get("output_dir") == "@bundle_root":
        merged["output_dir"] = _TRAINED
        merged["imports"].append(_ASKS)
    merged = _computed(merged, merged)
    for name, value in list(merged.items()):
        if isinstance(value, str) and name in original and value != original[name] and _holds_path(value):
            merged[name] = original[name]
    check_no_paths(merged, original, "train.json")
    return {name: merged[name] for name in (*[one for one in original if one in merged], *merged)} | _quiet(merged)


def _without_adaptation(merged: dict[str, Any], original: Mapping[str, Any]) -> None:
    """The exported weights are merged: what adapted them is neither in them nor made anew around random weights."""
    if merged.get("adaptation") is None:
        return
    used = {text.removeprefix("@") for _, text in _texts(merged["adaptation"]) if text.startswith("@")}
    merged["adaptation"] = None
    for name in used - original.keys():
        merged.pop(name, None)


def _original(source: Path) -> dict[str, Any]:
    """The bundle's own ``train.json``, its copies of sections made as in a run's recorded configuration."""
    parser = ConfigParser(ConfigParser.load_config_file(source / "train.json"))
    parser.resolve_macro_and_relative_ids()
    return {name: value for name, value in parser.get().items() if name != ConfigParser.meta_key}


def _one_process(merged: dict[str, Any], original: dict[str, Any], source: Path) -> dict[str, Any]:
    """Take the overlay for several processes back out: the bundle brings it along."""
    file = source / "multi_gpu_train.json"
    overlay = ConfigParser.load_config_file(file) if file.is_file() else {}
    for name, value in overlay.items():
        *parents, last = name.split("#")
        place, first = merged, original
        for parent in parents:
            place, first = place.get(parent, {}), first.get(parent, {})
        if place.get(last) != value:
            continue
        if last in first:
            place[last] = first[last]
        else:
            del place[last]
    return merged


def _quiet(merged: dict[str, Any]) -> dict[str, Any]:
    """Let ``monai.bundle.load``, which initialises a workflow to get at its network, write no file of a run."""
    before, run = list(merged.get("initialize", [])), list(merged.get("run", []))
    loading = next((line for line in before if str(line).startswith(_ENCODER)), None)
    if _KEEP not in before or loading is None:
        return {}
    before.remove(_KEEP)
    before[before.index(loading)] = f"{loading} if @encoder_weights else None"
    from_scratch = loading.replace("@encoder_weights", "None") + " if not @encoder_weights else None"
    return {"initialize": before, "run": [from_scratch, _KEEP, *run]}


def merged_inference(source: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """The bundle's ``inference.json`` with the run's settings.

    Args:
        source: ``configs`` of the bundle that was run.
        config: as ``merged_train`` returns it.

    Raises:
        ExportError: the run prepared its images in another way than ``inference.json`` does.
    """
    inference = ConfigParser.load_config_file(source / "inference.json")
    original = _original(source)
    for part in ("preprocessing", "inferer"):
        used, known = config.get("validate", {}).get(part), original.get("validate", {}).get(part)
        if part in inference and used != known:
            if part == "preprocessing" and _image_steps(used) != _image_steps(known):
                raise ExportError(
                    f"the run changed validate#{part}, which inference.json of the bundle does not follow: write an "
                    "inference.json with the same steps and export with that bundle."
                )
            if part == "inferer":
                inference[part] = used
    for name in inference.keys() & config.keys():
        if name in _OF_INFERENCE or _of_the_machine(name):
            continue
        if str(inference[name]).startswith("$@settings."):  # read from the encoder's card; the default in its place
            inference["settings"][name] = copy.deepcopy(config[name])
        else:
            inference[name] = copy.deepcopy(config[name])
    if "settings" in inference:
        inference["encoder_weights"] = "$os.path.join(@bundle_root, 'encoder', 'encoder.safetensors')"
    inference |= {"bundle_root": BUNDLE_ROOT, "imports": ["$import inspect", *inference["imports"]]}
    inference = _computed(inference, inference)
    own = ConfigParser.load_config_file(source / "inference.json")
    check_no_paths(inference, {"train": original, "inference": own}, "inference.json")
    return inference


def _image_steps(preprocessing: Any) -> Any:
    """What is done to an image; steps for the label alone, or of an annotator's label, are none of inference's."""
    steps = preprocessing.get("transforms") if isinstance(preprocessing, dict) else None
    if not isinstance(steps, list):
        return preprocessing
    own = [one for one in steps if not str(one.get("_target_")).startswith("monai_ssl_transfer.data.annotations.")]
    return [one for one in own if "image" in str(one.get("keys"))]


def _computed(value: Any, config: dict[str, Any]) -> Any:
    """Write the values of functions of this package in place of their calls, where they are plain values of the run."""
    if isinstance(value, list):
        return [_computed(one, config) for one in value]
    if not isinstance(value, dict):
        return value
    target = str(value.get("_target_", ""))
    if "settings" not in config and target.endswith(_COMPUTED) and target.startswith(PACKAGE):
        found = ConfigParser({**config, "_wanted": value}).get_parsed_content("_wanted")
        return list(found) if isinstance(found, tuple) else found
    return {name: _computed(one, config) for name, one in value.items()}


def check_no_paths(config: Mapping[str, Any], original: Mapping[str, Any], file: str) -> None:
    """Refuse to hand out the folders of a machine.

    Args:
        config: to be written.
        original: of the bundle; what it says itself is nobody's path.
        file: that the configuration goes into.

    Raises:
        ExportError: a setting holds a path.
    """
    known = {text for _, text in _texts(original)} | {BUNDLE_ROOT}
    for name, text in _texts(config):
        if text not in known and "_desc_" not in name and _holds_path(text):
            raise ExportError(
                f"{name} of the run holds a path of this machine ({text[:80]}), which {file} must not carry along: "
                "replace it in the run's config.json and export again."
            )


def _holds_path(text: str) -> bool:
    text = _WEB.sub("", text)
    return bool(_PATH.search(text)) or (not text.startswith(("$", "@")) and bool(_RELATIVE.fullmatch(text)))


def _texts(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from _texts(one, f"{name}#{key}" if name else str(key))
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from _texts(one, f"{name}#{number}")
