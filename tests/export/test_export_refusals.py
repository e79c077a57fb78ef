"""What is not handed out, and what an interrupted export leaves behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_exports import LANDMARKS, LIVER, Exported

from monai_ssl_transfer.cli import main
from monai_ssl_transfer.errors import ExportError
from monai_ssl_transfer.export.archive import publish
from monai_ssl_transfer.export.bundle import ExportOptions, export_bundle
from monai_ssl_transfer.export.statements import Statements

CHAIN = {"name": "simclr", "started_from": {"file": "start.pth", "sha256": "0" * 64, "licence": "CC BY-NC 4.0"}}


@pytest.fixture
def run(landmarks: Exported, tmp_path: Path) -> Path:
    """A copy of a run that a test may change; the weights are linked."""
    return Path(shutil.copytree(landmarks.run, tmp_path / "run", copy_function=os.link))


def rewrite(file: Path, content: Any) -> None:
    file.unlink(missing_ok=True)
    file.write_text(json.dumps(content))


def refused(run: Path, out: Path, bundle: str = LANDMARKS, **options: Any) -> str:
    with pytest.raises(ExportError) as error:
        export_bundle(bundle, run, out, ExportOptions(**options))
    assert not out.exists() or not list(out.iterdir())
    return str(error.value)


def test_a_run_without_an_evaluation_is_refused_unless_it_is_said(run: Path, tmp_path: Path):
    shutil.rmtree(run / "eval")
    said = refused(run, tmp_path / "out")
    assert "Nothing is measured" in said
    assert "--evaluation" in said
    assert "--unmeasured" in said
    folder = export_bundle(LANDMARKS, run, tmp_path / "out", ExportOptions(unmeasured=True))
    assert json.loads((folder / "configs" / "metadata.json").read_text())["eval_metrics"] == {}
    assert "Nothing is measured" in (folder / "docs" / "README.md").read_text()


def test_figures_of_other_weights_are_refused(run: Path, tmp_path: Path):
    record = run / "eval" / "evaluated.json"
    found = json.loads(record.read_text())
    rewrite(record, found | {"model_sha256": "0" * 64})
    assert "other weights" in refused(run, tmp_path / "out")
    rewrite(record, found | {"image_size": 224})
    assert "image_size 224" in refused(run, tmp_path / "out")


@pytest.mark.parametrize("where", ["encoder", "start of the encoder"])
def test_a_restricted_source_is_refused_until_the_right_is_stated(run: Path, tmp_path: Path, where: str):
    card = {"method": CHAIN, "licence": "Apache-2.0"} if where.startswith("start") else {"licence": "non-commercial"}
    rewrite(run / "encoder_load.json", {"file": "given.pth", "sha256": "1" * 64, "source": "a file", "card": card})
    said = refused(run, tmp_path / "out")
    assert ("start.pth" if where.startswith("start") else "given.pth") in said
    assert "--licence-allows-redistribution" in said
    stated = ExportOptions(licence_allows_redistribution=True)
    folder = export_bundle(LANDMARKS, run, tmp_path / "out", stated)
    chain = json.loads((folder / "docs" / "provenance.json").read_text())
    assert chain["right_stated"] is True
    assert where in [one["what"] for one in chain["sources"]]
    readme = (folder / "docs" / "README.md").read_text()
    assert "states the right" in readme


def test_a_run_that_records_no_encoder_is_refused(run: Path, tmp_path: Path):
    (run / "encoder_load.json").unlink()
    config = json.loads((run / "config.json").read_text())
    for begun in ("some/encoder.safetensors", None):
        rewrite(run / "config.json", config | {"encoder_weights": begun})
        assert "licence is unknown" in refused(run, tmp_path / "out")


def test_paths_of_the_machine_are_refused_or_left_out(run: Path, tmp_path: Path):
    config = json.loads((run / "config.json").read_text())
    config["train"]["handlers"].append({"_target_": "monai.handlers.StatsHandler", "name": "/home/someone/logs"})
    rewrite(run / "config.json", config)
    assert "/home/someone/logs" in refused(run, tmp_path / "out")


def test_places_of_the_machine_are_reset_by_their_names(run: Path, tmp_path: Path):
    config = json.loads((run / "config.json").read_text())
    places = {"continued_run": "/secret", "second_dir": "\\\\server\\share", "split_file": "mine/split.csv"}
    rewrite(run / "config.json", config | places | {"class_weights": [1.0]})
    train = json.loads((export_bundle(LANDMARKS, run, tmp_path / "out") / "configs" / "train.json").read_text())
    assert [train[name] for name in places] == [None, None, None]
    assert train["class_weights"] == [1.0]
    for place in ("/secret", "\\\\server\\share", "mine/runs/x.pt", "../x", "$open('/secret')"):
        rewrite(run / "config.json", config | {"said": place})
        assert place in refused(run, tmp_path / "other")


def test_figures_of_training_cases_are_refused_and_others_named(run: Path, tmp_path: Path):
    record = run / "eval" / "evaluated.json"
    found = json.loads(record.read_text())
    number = json.loads((run / "eval" / "summary.json").read_text())["n"]
    held_out = {"part": "test", "cases": number, "in_training": 0, "in_validation": 0, "same_folder": True}
    assert found["evaluated"] == held_out

    def readme(**changed: Any) -> str:
        rewrite(record, found | {"evaluated": found["evaluated"] | changed})
        folder = export_bundle(LANDMARKS, run, tmp_path / "out", ExportOptions(overwrite=True, evaluation=record))
        return (folder / "docs" / "README.md").read_text()

    assert f"{number} cases (test), held out" in readme()
    assert "the part (validation) that chose the epoch" in readme(part="validation", in_validation=number)
    assert "have the name of a training case" in readme(part="all", in_training=3, same_folder=False)
    rewrite(record, found | {"evaluated": found["evaluated"] | {"part": "all", "in_training": 1}})
    assert "trained on" in refused(run, tmp_path / "none")


def test_data_and_authors_are_those_that_are_stated(run: Path, tmp_path: Path):
    stated = Statements("A. Author", "GastroSet", "CC BY-NC-ND 4.0", "teaching")
    assert "CC BY-NC-ND" in refused(run, tmp_path / "out", stated=stated)
    free = Statements("A. Author", "GastroSet", "CC BY 4.0", "teaching")
    folder = export_bundle(LANDMARKS, run, tmp_path / "out", ExportOptions(stated=free))
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    assert [metadata[name] for name in ("authors", "data_source", "intended_use")] == [
        "A. Author", "GastroSet", "teaching",
    ]  # fmt: skip
    for file in ("README.md", "data_license.txt"):
        assert "GastroSet. Licence of these data: CC BY 4.0" in (folder / "docs" / file).read_text()
    silent = export_bundle(LANDMARKS, run, tmp_path / "silent")
    text = (silent / "docs" / "data_license.txt").read_text()
    assert "not stated by the person" in text
    assert "CC BY 4.0" in text  # what the bundle's documentation says of HyperKvasir


def test_a_run_that_stopped_early_says_so(run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    config = json.loads((run / "config.json").read_text())
    rewrite(run / "config.json", config | {"epochs": 50})
    folder = export_bundle(LANDMARKS, run, tmp_path / "out")
    assert "| epochs | 1 of 50 |" in (folder / "docs" / "README.md").read_text()
    assert "1 of 50 epochs" in caplog.text


def test_other_runs_and_names_are_refused(run: Path, tmp_path: Path):
    assert "not of ct_liver" in refused(run, tmp_path / "out", bundle=LIVER)
    assert "choose one of" in refused(run, tmp_path / "out", bundle="liver")
    assert "--weights" in refused(tmp_path / "nowhere", tmp_path / "out")
    assert "one digit" in refused(run, tmp_path / "out", version="0.10.0")
    weights = run / "models" / "model.pt"
    content = weights.read_bytes()
    weights.unlink()
    weights.write_bytes(content[: len(content) // 2])
    shutil.rmtree(run / "eval")
    assert "cannot be read" in refused(run, tmp_path / "out", unmeasured=True)


def test_an_earlier_export_is_kept_unless_overwrite(landmarks: Exported, capsys: pytest.CaptureFixture[str]):
    arguments = ["bundles", "export", LANDMARKS, "--weights", str(landmarks.run), "--out"]
    assert main([*arguments, str(landmarks.folder.parent)]) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_a_failed_or_killed_export_leaves_the_earlier_one(tmp_path: Path):
    target = tmp_path / "bundle"
    publish(target, lambda folder: (folder / "first").write_text("1"))

    def full(folder: Path) -> None:
        (folder / "half").write_text("2")
        raise OSError(28, "No space left on device")

    with pytest.raises(ExportError, match="free space"):
        publish(target, full, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert (target / "first").read_text() == "1"
    code = (
        "import os, sys; from pathlib import Path; from monai_ssl_transfer.export.archive import publish\n"
        "def fill(folder):\n    (folder / 'half').write_text('2'); os._exit(9)\n"
        "publish(Path(sys.argv[1]), fill, overwrite=True)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(target)], check=False)
    assert done.returncode == 9
    assert (target / "first").read_text() == "1"
    publish(target, lambda folder: (folder / "second").write_text("3"), overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert [path.name for path in target.iterdir()] == ["second"]
