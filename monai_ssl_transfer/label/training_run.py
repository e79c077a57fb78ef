"""One training of a bundle on given images into a folder of its own, and the judgement of a model on given images."""

from __future__ import annotations

import copy
import json
import logging
import math
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from monai_ssl_transfer.durable import write_durably
from monai_ssl_transfer.engines.bundle_run import run_bundle
from monai_ssl_transfer.engines.transfer.fine_tuning import load_model
from monai_ssl_transfer.errors import TrainingError
from monai_ssl_transfer.label.training_progress import refuse_without_server

logger = logging.getLogger(__name__)

_NEEDED = ("output_dir", "model_file", "encoder_weights", "initialize", "network_def", "validate", "train")
_INITIALISATION = "initialise_encoder("


@dataclass(frozen=True)
class CandidateTraining:
    """What is trained, on what, and where it goes.

    Args:
        bundle: folder of the bundle; nothing is written there.
        folder: of the run.
        training: {"image", "label"} of the images that train.
        validation: likewise of those that validate.
        epochs: number of epochs.
        device: "cpu", "cuda:0", ...
        start: state dict to start from; None starts from `encoder`.
        encoder: checkpoint of the SSL encoder; None starts from scratch.
        gpus: numbers of the GPUs; more than one takes the bundle's overlay for several processes.
        server: id of the parent process that the training shall not outlive; None for none.
        settings: more ids of the configuration to override.
    """

    bundle: Path
    folder: Path
    training: Sequence[Mapping[str, Any]]
    validation: Sequence[Mapping[str, Any]]
    epochs: int
    device: str
    start: Path | None = None
    encoder: Path | None = None
    gpus: Sequence[int] = ()
    server: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def candidate(self) -> Path:
        """Where the trained state dict goes."""
        return self.folder / "models" / "model.pt"

    def train(self) -> Path:
        """Train, and keep the weights of the best validated epoch.

        Returns:
            `candidate`.

        Raises:
            UserError: the bundle cannot be trained here, or an image, a label or the encoder does not fit.
            TrainingError: no model came of it.
        """
        several = len(self.gpus) > 1
        config = self._configuration(several)
        handlers = list(config["train#handlers"])
        config["train#handlers"] = [
            *handlers,
            {
                "_target_": "monai_ssl_transfer.label.training_progress.TrainingProgress",
                "folder": str(self.folder),
                "evaluator": "@validate#evaluator",
                "server": None if several else self.server,
            },
        ]
        config["initialize"] = self._initialisation(config["initialize"])
        file = self._written(config, "train.json")
        if several:
            self._run_processes(file)
        else:
            run_bundle([file], {}, meta_file=self._metadata)
        if not self.candidate.is_file():
            raise TrainingError(f"no epoch of the training in {self.folder} was validated: train for more epochs.")
        return self.candidate

    def judge(self, model: Path) -> tuple[str, float]:
        """Measure a state dict on the validation images.

        Returns:
            Name of the bundle's key metric, and its value (larger is better).

        Raises:
            TrainingError: the file does not fit the network, or the metric is not defined on these images.
        """
        config = self._configuration(several=False)
        config["validate#handlers"] = []  # the bundle's own would keep this model as the best of a training
        config["initialize"], config["run"] = ["$explain_user_errors()"], []

        def measured(parser: ConfigParser) -> tuple[str, float]:
            network = parser.get_parsed_content("network_def")
            load_model(network, model)
            evaluator = parser.get_parsed_content("validate#evaluator")
            evaluator.run()
            name = str(evaluator.state.key_metric_name)
            return name, float(evaluator.state.metrics[name])

        name, value = run_bundle([self._written(config, "judge.json")], {}, meta_file=self._metadata, judge=measured)
        if not math.isfinite(value):
            raise TrainingError(
                f"{name} is not defined on the {len(self.validation)} validation images: label more images, of every "
                "class."
            )
        return name, value

    @property
    def _metadata(self) -> Path:
        return self.bundle / "configs" / "metadata.json"

    def _configuration(self, several: bool) -> ConfigParser:
        """The bundle's training with these images, this folder and this length."""
        files = [self.bundle / "configs" / "train.json"]
        if several:
            files.append(self.bundle / "configs" / "multi_gpu_train.json")
            if not files[-1].is_file():
                raise TrainingError(f"{files[-1]} is missing: train with multi_gpu false.")
        config = ConfigParser(copy.deepcopy(ConfigParser.load_config_files(files)))
        missing = [name for name in _NEEDED if name not in config.get()]
        if missing:
            raise TrainingError(
                f"{files[0]} has no '{missing[0]}', so a candidate could not be kept apart from the model in use: "
                "serve a bundle of this project."
            )
        changed: dict[str, Any] = {
            "bundle_root": str(self.bundle),
            "output_dir": str(self.folder),
            "model_file": str(self.candidate),
            "encoder_weights": None if self.start or self.encoder is None else str(self.encoder),
            "epochs": self.epochs,
            "val_interval": _interval(config.get("val_interval", 1), self.epochs),
            "train#trainer#max_epochs": self.epochs,
            "train#dataset#data": [dict(one) for one in self.training],
            "validate#dataset#data": [dict(one) for one in self.validation],
            **self.settings,
        }
        if not several:  # the overlay gives each process its own
            changed["device"] = self.device
        for name, value in changed.items():
            config[name] = value
        return config

    def _initialisation(self, steps: Sequence[str]) -> list[str]:
        """The bundle's steps; a model to start from takes the place of the encoder."""
        if self.start is None:
            return list(steps)
        load = f"$load_model(@network_def, {str(self.start)!r})"
        if not any(_INITIALISATION in step for step in steps):
            return [*steps, load]
        return [load if _INITIALISATION in step else step for step in steps]

    def _written(self, config: ConfigParser, name: str) -> Path:
        file = self.folder / name
        text = json.dumps(config.get(), indent=2) + "\n"
        try:
            write_durably(file, lambda stream: stream.write(text.encode()))
        except OSError as error:
            raise TrainingError(f"{file} could not be written ({error.strerror}): free space there.") from error
        return file

    def _run_processes(self, file: Path) -> None:
        """One process per GPU; what they say goes where this process's own output goes."""
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ",".join(str(number) for number in self.gpus)}
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nnodes=1"]
        command += [f"--nproc_per_node={len(self.gpus)}", "-m", "monai.bundle", "run", "--config_file", str(file)]
        command += ["--meta_file", str(self._metadata)]
        logging_file = self.bundle / "configs" / "logging.conf"
        command += ["--logging_file", str(logging_file)] if logging_file.is_file() else []
        with subprocess.Popen(command, env=environment) as process:
            try:
                while process.poll() is None:
                    refuse_without_server(self.server)
                    time.sleep(1)
            finally:
                process.terminate()  # which ends the processes of all GPUs; nothing if they have ended
        if process.returncode:
            raise TrainingError(
                f"the training on {len(self.gpus)} GPUs ended with code {process.returncode}: see the lines before "
                "this one, or train with multi_gpu false."
            )


def _interval(wanted: Any, epochs: int) -> int:
    """The largest interval up to the bundle's own that validates the last epoch: its training must not be in vain."""
    longest = min(int(wanted) if isinstance(wanted, int) else 1, epochs)
    return next(interval for interval in range(longest, 0, -1) if epochs % interval == 0)
