"""The report of a study that was run here: every part from real files, in words, in numbers and in a browser."""

from __future__ import annotations

import base64
import itertools
import json
import re
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_study_folder import judge_volumes, study_folder
from scipy import stats

from monai_ssl_transfer.cli import main
from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.robustness import judge_grid
from monai_ssl_transfer.study.declaration import Comparison, Declaration, DeclaredCell, Family, Metric, read_declaration
from monai_ssl_transfer.study.report.overlay_section import overlay_section, same_cases
from monai_ssl_transfer.study.report.recommendation import recommendations
from monai_ssl_transfer.study.report.robustness_curves import corrupted_settings, ends, read_grid
from monai_ssl_transfer.study.report.run_folder import read_run_folder
from monai_ssl_transfer.study.report.spent import duration
from monai_ssl_transfer.study.report.writing import write_report
from monai_ssl_transfer.study.results import Cell, Results
from monai_ssl_transfer.study.statistics.analysis import analyse
from monai_ssl_transfer.study.statistics.rank_agreement import agreement, over_single_seeds


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = study_folder(tmp_path_factory.mktemp("study"))
    assert main(["study", "report", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def report(study: Path) -> str:
    return (study / "report" / "report.md").read_text(encoding="utf-8")


def test_the_advice_comes_first_and_says_how_sure_it_is(report: str) -> None:
    short = report.split("## In short")[1].split("\n## ")[0]
    assert "**Use own or ImageNet rather than scratch.** (polyps)" in short
    assert "own is better in 2 of 2 comparisons (polyps, fine-tuning: dice; polyps, 10 % of the labels" in short
    assert "ImageNet is better in 1 of 2 comparisons (polyps, fine-tuning: dice), worse in none and undecided" in short
    assert "Between them nothing is tested here; own has the best mean in 2 of 2 settings." in short
    assert "2 to 3 seeds per cell; at most a 5 % risk that any finding among these 4 comparisons is wrong" in short
    assert "Seeds repeat the training on the task. Where one pretrained encoder served all of them" in short
    assert "Other patients: in 3 of 3 findings" in short
    assert "No worse than scratch by the margin stated beforehand (Holm): ImageNet in 2 of 2; own in 2 of 2." in short
    assert (
        "**Undecided: no difference from scratch is shown.** (findings)" in short and "a guess, not a finding" in short
    )


@pytest.mark.parametrize(
    ("gains", "advice"),
    [
        ((1, 0, 0, 0), "Mostly undecided; better than ref: new in 1 of 4 comparisons."),
        ((1, 1, 0, 0), "Use new rather than ref."),
        ((1, -1, 0, 0), "It depends on the setting."),
        ((-1, 0, 0, 0), "Mostly undecided; worse than ref: new in 1 of 4 comparisons."),
        ((-1, -1, 0, 0), "Keep ref."),
        ((0, 0, 0, 0), "Undecided: no difference from ref is shown."),
    ],
)
def test_one_finding_in_many_is_no_advice(gains: tuple[int, ...], advice: str) -> None:
    """Smaller is better here; a gain of 1 lowers the error by a hundred times its spread."""
    noise = {"ref": (0.0, 0.01, 0.02), "new": (0.011, 0.001, 0.02)}
    cells = {name: [Cell("", f"t{n}", name, "", 1.0) for n in range(4)] for name in noise}
    rows = [
        {**asdict(cell), "seed": seed, "case": "", "group": "", "metric": "error",
         "value": 5 + value - (gains[n] if name == "new" else 0)}
        for name in noise for n, cell in enumerate(cells[name]) for seed, value in enumerate(noise[name])
    ]  # fmt: skip
    pairs = tuple(Comparison(a, b, "error") for a, b in zip(cells["new"], cells["ref"], strict=True))
    declared = tuple(DeclaredCell(cell, ("error",), (0, 1, 2)) for own in cells.values() for cell in own)
    metric = Metric("error", larger_is_better=False)
    analysis = analyse(Results.of_rows(rows), Declaration("t", "s", (metric,), declared, (Family("f", "all", pairs),)))
    (found,) = recommendations(analysis.families[0])
    assert found.advice == advice


def test_metrics_beside_the_primary_one_are_shown_and_not_tested(study: Path, report: str) -> None:
    table = report.split("Other metrics")[1].split("\n\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| findings")]
    assert len(rows) == 4 and all("| macro_f1 |" in row for row in rows)
    assert "Not tested and in no family" in table
    lines = (study / "report" / "comparisons.csv").read_text(encoding="utf-8").splitlines()
    shown = [line.split(",") for line in lines if line.startswith(",")]
    assert [line[5] for line in shown] == ["macro_f1"] * 4 and all(line[-3:-1] == ["", ""] for line in shown)
    assert report.count("these 4 comparisons is wrong") == 2, "4 of findings, not 8"


def test_few_shot_probes_are_drawn_over_their_shots(study: Path, tmp_path: Path) -> None:
    """The kNN cells of the study as if they were few-shot probes of one and of four shots."""
    folder = Path(shutil.copytree(study, tmp_path / "study"))
    declaration = read_declaration(folder / "study.json")
    run = read_run_folder(folder, declaration)
    assert run is not None
    shots = {"kNN": 4, "fine-tuning": 1}
    for one in run.done():
        if one.cell.task == "findings":
            record = {**one.record, "few_shot": {"shots": shots[one.cell.protocol], "probe": "logistic", "draws": 2}}
            (one.folder / "cell.json").write_text(json.dumps(record))
    write_report(folder)
    page = (folder / "report" / "report.html").read_text(encoding="utf-8")
    drawn = page.split("<section id='few-shot'>")[1].split("</section>")[0]
    assert drawn.count("<figure>") == 2 and "findings, logistic: accuracy" in drawn and "shots per class" in drawn
    text = (folder / "report" / "report.md").read_text(encoding="utf-8").split("## Few-shot")[1].split("\n## ")[0]
    assert "| 1 per class | 4 per class |" in text and text.count("| findings, logistic: macro_f1 |") == 3
    assert "the mean over 2 draws" in text
    assert drawn.count("<polyline") == 2 * 3 and drawn.count("<circle") == 2 * (6 + 6 + 5)


def test_what_was_not_run_is_told_with_its_reason(report: str) -> None:
    told = report.split("## Not run")[1].split("\n## ")[0]
    assert "- Failed (mask 7.png is empty: remove it): own in findings, fine-tuning, seed 2." in told
    assert "- Not run to its end: own in polyps, 10 % of the labels, fine-tuning, seed 2." in told
    assert told.count("\n- ") == 2


def test_the_declared_budget_families_and_margin(report: str) -> None:
    assert (
        "Tuning, the same for every initialisation: 20 epochs, learning rate 1e-4, none tried but this one." in report
    )
    assert "“polyps” (4 comparisons: every initialisation against scratch; declared before the runs)" in report
    assert "Largest differences that do not matter: dice 0.0200." in report
    assert "36 runs: 12 cells, seeds 0, 1, 2." in report


def test_the_cost_counts_pretraining_and_failures(report: str) -> None:
    """35 runs of 100, 110 and 120 s were started (one of 120 s never was), and 7200 s of pretraining."""
    assert f"34 runs on cpu: {duration(12 * 330 - 120 + 7200)} of computing in all, 1 failed run counted." in report
    assert f"| own | 2.0 h | 10 | {duration(4 * 330 - 2 * 120)} | {duration(4 * 330 - 2 * 120 + 7200)} |" in report
    assert (
        "| polyps | 10 % | fine-tuning | own | 2 | 1.8 min | 1.7 min to 1.8 min | 3.00 GiB | 1,250,000 | 80 |" in report
    )
    assert [duration(x) for x in (45, 99.9, 100, 7200, 200000)] == ["45 s", "100 s", "1.7 min", "2.0 h", "2.3 days"]


def test_intervals_of_means_and_seeds_without_effect(report: str) -> None:
    assert re.search(r"\| polyps \| 10 % \| .* \| 0\.7\d+ \(0\.\d+ to 0\.\d+\) \[2\] \|", report)
    assert "## Seeds without effect" in report and "own in findings, fine-tuning (accuracy, macro_f1)" in report


def test_the_ranking_is_compared_with_the_trained_order(report: str) -> None:
    """LogME falls with the invented gain, kNN rises; the H-score is the same for all, so that it ranks nobody."""
    rows = [
        line.strip("| ").split(" | ") for line in report.splitlines() if line.startswith("| findings | fine-tuning |")
    ]
    rows = [row for row in rows if row[3] in ("kNN", "LogME", "H-score")]
    knn, logme, h_score = rows
    assert float(knn[5]) == -float(logme[5]) and knn[7] == "0.333"
    assert h_score[5:7] == ["–", "–"] and h_score[9] == "tie"
    assert "after training with the largest share of the labels that was declared for it" in report
    assert "With 3 encoders even a perfect order has p = 0.333: tau is then a description, no evidence." in report


@pytest.mark.parametrize("n", [3, 4, 6])
def test_kendall_without_ties_is_scipys_exact_test(n: int) -> None:
    for order in itertools.islice(itertools.permutations(range(n)), 0, 720, 7):
        found, expected = agreement(range(n), order), stats.kendalltau(range(n), order, method="exact")
        assert (found.tau, found.p) == pytest.approx((expected.statistic, expected.pvalue))
    assert agreement(range(n), range(n)).p == pytest.approx(agreement(range(n), range(n)).smallest_p)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=3, max_size=4))
def test_kendall_with_ties_by_trying_all_orders(pairs: list[tuple[int, int]]) -> None:
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    found = agreement(a, b)
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert np.isnan(found.tau) and np.isnan(found.p)
        return
    taus = [abs(stats.kendalltau(a, order).statistic) for order in itertools.permutations(b)]
    assert found.p == pytest.approx(np.mean([tau >= abs(found.tau) - 1e-9 for tau in taus]))


def test_tau_of_single_seeds_by_all_combinations() -> None:
    score, runs = {"a": 1.0, "b": 2.0, "c": 3.0}, {"a": [0.1, 0.5], "b": [0.3], "c": [0.2, 0.4, 0.6]}
    every = [stats.kendalltau([1, 2, 3], one).statistic for one in itertools.product(*runs.values())]
    assert over_single_seeds(score, runs) == pytest.approx(sorted(every))


def test_robustness_is_that_of_a_single_grid_and_pairs_the_initialisations(study: Path, report: str) -> None:
    run = read_run_folder(study, read_declaration(study / "study.json"))
    assert run is not None
    (found,) = corrupted_settings(run)
    assert (found.groups, found.severities, found.seeds) == (12, (1, 3, 5), {"scratch": 3, "ImageNet": 3, "own": 3})
    grids = [read_grid(one.folder / "robustness") for one in run.cells if (one.folder / "robustness").is_dir()]
    names = [one.cell.initialisation for one in run.cells if (one.folder / "robustness").is_dir()]
    means = {key: np.mean([row.gained for row in rows]) for key, rows in grids[names.index("own")].items()}
    judged = [judge_grid(grid, "Dice").overall for grid, name in zip(grids, names, strict=True) if name == "own"]
    assert len(judged) == 3 and len(means) == 10
    assert found.drop("own")[0] == pytest.approx(np.mean([drop.value for drop, _ in judged]))
    difference = found.drop("own") - found.drop("scratch")
    low, high = ends(difference, found.groups)
    widths = [np.diff(ends(found.drop(name), found.groups))[0] for name in ("own", "scratch")]
    assert low < difference[0] < high < 0 and high - low < np.hypot(*widths), "pairing takes the cases' spread away"
    assert f"{difference[0]:.3f} ({low:.3f} to {high:.3f}) |" in report


def test_runs_that_judged_other_cases_are_named_and_not_compared(tmp_path: Path) -> None:
    folder = study_folder(tmp_path)
    for file in folder.glob("cells/polyps__own__fine-tuning__1__seed0/robustness/cells/**/cases.csv"):
        file.write_text("\n".join(file.read_text().splitlines()[:-1]) + "\n")
    shutil.rmtree(folder / "cells" / "polyps__own__fine-tuning__1__seed1" / "robustness" / "cells" / "smoke" / "5")
    write_report(folder)
    text = (folder / "report" / "report.md").read_text(encoding="utf-8")
    assert "not shown, because they cannot be compared: own, seed 0 judged other cases; own, seed 1 has 9 of 10" in text
    (folder / "ranking" / "findings.json").write_text("{}")
    with pytest.raises(DataError, match=r"findings\.json is no ranking"):
        write_report(folder)


@settings(deadline=None)
@given(st.integers(1, 3), st.lists(st.tuples(*[st.floats(0, 1)] * 3), min_size=1, max_size=12))
def test_the_same_cases_are_shown_of_all(initialisations: int, values: list[tuple[float, ...]]) -> None:
    dice = {f"i{n}": {f"c{k}": value[n] for k, value in enumerate(values)} for n in range(initialisations)}
    chosen = same_cases(dice)
    mean = {case: np.mean([one[case] for one in dice.values()]) for case in dice["i0"]}
    assert len(set(chosen.values())) == len(chosen)
    assert mean[chosen["best"]] == pytest.approx(max(mean.values()))
    if len(values) > 1:
        assert mean[chosen["worst"]] == pytest.approx(min(mean.values()))
    if len(values) > 2:
        assert mean[chosen["worst"]] <= mean[chosen["median"]] <= mean[chosen["best"]]
    assert ("differ most" in chosen) == (initialisations > 1 and len(values) > 3)


def test_the_page_has_every_part_and_asks_for_nothing(study: Path) -> None:
    page = (study / "report" / "report.html").read_text(encoding="utf-8")
    for title in ("In short", "Differences", "Label efficiency", "Robustness", "Predictions on the same cases",
                  "Embeddings", "Ranking without fine-tuning", "Cost", "What was declared", "Not run"):  # fmt: skip
        assert f"<h2>{title}</h2>" in page
    assert page.index("In short") < page.index("<nav>")
    assert page.count("data:image/jpeg") == 12, "best, median, worst and differ most, of three initialisations"
    assert all(source.startswith("data:image/jpeg;base64,") for source in re.findall(r"src=['\"]([^'\"]+)", page))
    assert "<script" not in page and "url(" not in page and "@import" not in page and "http" not in page
    assert "nan" not in re.sub(r"base64,[^']*", "", page)
    latex = (study / "report" / "tables.tex").read_text(encoding="utf-8")
    assert latex.count(r"\begin{longtable}") == latex.count(r"\end{longtable}") >= 9
    assert "Cost by initialisation" in latex


def test_a_browser_shows_it_on_a_phone_and_on_a_desk(study: Path) -> None:
    """No scrolling sideways, no error on the console, no request; frames, because a window is 500 pixels at least."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium is installed")
    page = (study / "report" / "report.html").read_text(encoding="utf-8")
    asked = "performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).length"
    broken = "[...document.images].filter(i => !i.naturalWidth).length"
    told = f"[innerWidth, document.documentElement.scrollWidth, {asked}, {broken}]"
    script = f"<script>onload = () => parent.postMessage({told}, '*')</script>"
    (study / "told.html").write_text(page.replace("</body>", f"{script}</body>"), encoding="utf-8")
    frames = "".join(
        f"<iframe src='told.html' style='border:0' width={width} height=900></iframe>" for width in (390, 1280)
    )
    listen = "<script>onmessage = e => document.body.append(`[${e.data}]`)</script>"
    (study / "frames.html").write_text(f"<!doctype html><body>{listen}{frames}</body>", encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000", "--enable-logging=stderr"]
    command = [browser, *options, "--dump-dom", (study / "frames.html").as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    rows = sorted(tuple(map(int, row)) for row in re.findall(r"\[(\d+),(\d+),(\d+),(\d+)\]", shown.stdout))
    assert [row[0] for row in rows] == [390, 1280]
    assert all(content <= inner and requests == missing == 0 for inner, content, requests, missing in rows)
    assert "CONSOLE" not in shown.stderr


def test_volumes_are_shown_as_photographs_are(study: Path, tmp_path: Path) -> None:
    """The cells with all labels as if they were of a CT task, evaluated as its bundle does."""
    truth = np.zeros((24, 24, 4), np.uint8)
    truth[4:20, 4:20, 2], truth[8:14, 8:14, 2] = 1, 2
    folder = Path(shutil.copytree(study, tmp_path / "study"))
    for place in folder.glob("cells/polyps__*__1__seed0/eval"):
        shutil.rmtree(place)
        judge_volumes(place, {f"ct{n}": truth * (np.arange(24) >= 5 * n)[:, None, None] for n in range(5)}, truth)
    declaration = read_declaration(folder / "study.json")
    run = read_run_folder(folder, declaration)
    assert run is not None
    found = overlay_section(run, SimpleNamespace(declaration=declaration))  # it asks the analysis for nothing else
    assert found is not None
    section = found.pictures
    cases = re.findall(r"<b>(Best|Median|Worst|They differ most)</b>: (\w+)", section)
    assert cases == [("Best", "ct0"), ("Median", "ct2"), ("Worst", "ct4"), ("They differ most", "ct1")]
    assert section.count("<figure>") == 4 * 3 and "own: Dice 1.000" in section and "prediction dashed" in section
    pictures = next(folder.glob("cells/polyps__own__*__1__seed0/eval/overlays"))
    best = pictures / json.loads((pictures / "cases.json").read_text())["ct0"]
    assert base64.b64encode(best.read_bytes()).decode() in section


def test_a_study_without_extras_has_only_what_it_has(tmp_path: Path) -> None:
    folder = study_folder(tmp_path, robustness=False)
    for name in ("ranking", "embeddings", "pretraining"):
        shutil.rmtree(folder / name)
    for pictures in folder.glob("cells/*/eval/overlays"):
        shutil.rmtree(pictures)
    (folder / "study.yaml").unlink()
    write_report(folder)
    text = (folder / "report" / "report.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert not {"Robustness", "Embeddings", "Ranking without fine-tuning", "Predictions on the same cases"} & set(
        headings
    )
    assert {"Cost", "What was declared", "Not run"} <= set(headings)
    assert "No tuning budget was stated" in text
    cell = next((folder / "cells").glob("*/cell.json"))
    cell.write_text(json.dumps({"status": "done"}))
    with pytest.raises(DataError, match=r"cell\.json is not there or damaged"):
        write_report(folder)
