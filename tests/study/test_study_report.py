"""From a file to the report: the importers, the words, the page, LaTeX."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from monai_ssl_transfer.cli import main
from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.study.declaration import Interpolation, Metric, read_declaration
from monai_ssl_transfer.study.published.importing import ImportOptions, import_study
from monai_ssl_transfer.study.report.printing import fixed, interval, p_value
from monai_ssl_transfer.study.report.tables import Table
from monai_ssl_transfer.study.report.text_tables import latex_table, latex_text
from monai_ssl_transfer.study.report.writing import write_report
from monai_ssl_transfer.study.statistics.interpolated import interpolated_population


def tidy(file: Path) -> Path:
    """Invented runs: "own" is better by 0.1 everywhere at 100 %, lacks seed 2 at 10 %, and is worse in HD95."""
    lines = ["task,initialisation,protocol,fraction,seed,case,group,metric,value"]
    for fraction in (1.0, 0.1):
        for name, gain in (("scratch", 0.0), ("own <new>", 0.1)):
            for seed in range(3):
                if (name, fraction, seed) == ("own <new>", 0.1, 2):
                    continue
                for case in range(12):
                    dice = 0.5 + gain * fraction + 0.01 * seed + 0.02 * (case % 5) + 0.003 * ((case * seed) % 4)
                    common = f"LiTS,{name},fine-tuning,{fraction},{seed},c{case},p{case // 2}"
                    lines += [f"{common},Dice,{dice}", f"{common},HD95,{20 + 90 * gain * fraction + seed + case % 3}"]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


@pytest.fixture
def study(tmp_path: Path) -> Path:
    out = tmp_path / "study"
    arguments = ["--reference", "scratch", "--smaller-is-better", "HD95", "--margin", "Dice=0.05", "--title", "A & B"]
    assert main(["study", "import", str(tidy(tmp_path / "runs.csv")), "--out", str(out), *arguments]) == 0
    assert main(["study", "report", str(out)]) == 0
    return out


def test_the_report_says_what_is_better_worse_and_missing(study: Path) -> None:
    report = (study / "report" / "report.md").read_text(encoding="utf-8")
    assert "**Against scratch: own <new> is better in 1, worse in 1 and undecided in 2.**" in report
    assert "Of 4 comparisons with scratch, 2 are shown after Holm's correction" in report
    assert "own <new> is better than scratch by 0.1000 of Dice in LiTS, fine-tuning (95 %" in report
    assert "own <new> is worse than scratch by 9.00 of HD95 in LiTS, fine-tuning" in report
    assert "correction, only from 0.0620 of Dice on." in report and "correction, only from 4.90 of HD95 on." in report
    assert "Not shown: the other 2; that is no evidence of equality." in report
    assert "fine-tuning, 10 % of the labels: seed 2 of 3 declared: LiTS Dice (own <new>)" in report
    assert "own <new> (2 and 3 seeds)" in report
    assert "by the stated margin (2 tests): own <new> in LiTS, fine-tuning (Dice, margin 0.0500, p Holm" in report
    assert "against the stated margin" in report and "Monte Carlo" not in report
    assert re.search(r"\| 12 \| 6 \| \+0\.1000 \| .* \| 0\.031 \(exact\) \|", report), "6 patients: 2 / 2^6"


def test_the_csv_has_unrounded_numbers(study: Path) -> None:
    with (study / "report" / "comparisons.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    assert float(rows[0]["difference"]) == pytest.approx(0.1)
    assert all(float(row["p_holm"]) >= float(row["p"]) for row in rows)


class _Tags(HTMLParser):
    """Collects what a page asks for from elsewhere, and whether its elements nest."""

    empty = frozenset(("meta", "line", "circle", "polyline", "br"))

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.outside += [value or "" for name, value in attrs if name in ("src", "href") and (value or "")[:1] != "#"]
        if tag not in self.empty:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        return

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_needs_nothing_from_elsewhere_and_escapes_names(study: Path) -> None:
    page = (study / "report" / "report.html").read_text(encoding="utf-8")
    tags = _Tags()
    tags.feed(page)
    assert not tags.open and not tags.outside
    assert "script" not in page and "url(" not in page and "@import" not in page
    assert "<new>" not in page and "own &lt;new&gt;" in page
    assert "<title>A &amp; B</title>" in page
    assert "Label efficiency" in page and page.count("<figure>") == 2
    positions = [float(x) for x in re.findall(r"c?x[12]?='(-?[\d.]+)%'", page)]
    assert positions and all(0 <= x <= 100 for x in positions)


def test_a_browser_shows_the_page_without_scrolling_sideways(study: Path) -> None:
    """At a phone's and a desk's width, in frames, because a headless window is 500 pixels wide at least."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium is installed")
    page = (study / "report" / "report.html").read_text(encoding="utf-8")
    tell = "<script>onload = () => parent.postMessage([innerWidth, document.documentElement.scrollWidth], '*')</script>"
    (study / "told.html").write_text(page.replace("</body>", f"{tell}</body>"), encoding="utf-8")
    frames = "".join(
        f"<iframe src='told.html' style='border:0' width={width} height=900></iframe>" for width in (390, 1280)
    )
    listen = "<script>onmessage = e => document.body.append(`[${e.data}]`)</script>"
    (study / "frames.html").write_text(f"<!doctype html><body>{listen}{frames}</body>", encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000", "--dump-dom"]
    command = [browser, *options, (study / "frames.html").as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    widths = re.findall(r"\[(\d+),(\d+)\]", shown)
    assert sorted(int(inner) for inner, _ in widths) == [390, 1280]
    assert all(int(content) <= int(inner) for inner, content in widths)


def test_an_initialisation_without_its_reference_counts_and_is_listed(tmp_path: Path) -> None:
    text = (
        "task,initialisation,seed,metric,value\nA,x,0,m,1\nA,x,1,m,2\nA,ref,0,m,2\nA,ref,1,m,4\nB,x,0,m,1\nB,x,1,m,1\n"
    )
    (tmp_path / "r.csv").write_text(text)
    import_study(tmp_path / "r.csv", tmp_path / "s", ImportOptions(reference="ref"))
    report = write_report(tmp_path / "s").with_name("report.md").read_text(encoding="utf-8")
    assert "1 of them was not run and counts as p = 1" in report
    assert "x is better in 0, worse in 0 and undecided in 2; nothing here speaks for leaving ref." in report
    assert "seeds 0, 1 of 2 declared: B m (ref)" in report


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (ImportOptions(), "no reference was named.*one of scratch, own <new>"),
        (ImportOptions(reference="x"), "it has no initialisation x"),
        (ImportOptions(reference="scratch", margins={"IoU": 0.1}), "has no metric IoU: it has Dice, HD95"),
    ],
)
def test_options_that_fit_no_row_are_refused(tmp_path: Path, options: ImportOptions, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        import_study(tidy(tmp_path / "runs.csv"), tmp_path / "study", options)
    assert not (tmp_path / "study").exists()


def test_only_the_primary_metric_of_a_table_is_tested(tmp_path: Path) -> None:
    options = ImportOptions(reference="scratch", primary=["Dice"])
    _, declaration = import_study(tidy(tmp_path / "runs.csv"), tmp_path / "study", options)
    assert {one.metric for one in declaration.families[0].comparisons} == {"Dice"}
    assert [one.metric for one in declaration.shown] == ["HD95"] * 2
    with pytest.raises(DataError, match="has no metric IoU"):
        import_study(tmp_path / "runs.csv", tmp_path / "other", ImportOptions(reference="scratch", primary=["IoU"]))
    with pytest.raises(DataError, match="so --primary has no effect: leave it out"):
        import_study(radnet_like(tmp_path / "runs.json"), tmp_path / "other", ImportOptions(primary=["accuracy"]))


def test_a_study_is_not_replaced_unasked(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = str(study.parent / "runs.csv")
    again = ["study", "import", source, "--out", str(study), "--reference", "own <new>"]
    assert main(again) == 2
    assert "already holds a study" in capsys.readouterr().err
    assert main([*again, "--overwrite"]) == 0


def radnet_like(file: Path, **changes: object) -> Path:
    """Two invented cells of four runs in the shape of the published file."""
    suffixes = ("", "_f1", "_f2", "_f3")
    content: dict[str, object] = {}
    for name, first in (("PT_SimCLR_I1k_FT_RXXS", 0.90), ("PT_SimCLR_R_FT_RXXS", 0.95), ("PT_SimCLR_RF_FT_RXXS", 0.97)):
        content[f"E2|{name}"] = [
            [name + s, {"acc": first + i / 1000, "avg_val_loss": 0.1}] for i, s in enumerate(suffixes)
        ]
    content["E3|PT_Scratch_FT_LiTS_noise25e3"] = [["PT_Scratch_FT_LiTS_noise25e3", {"dice_avg_class_2": 0.5}]]
    content.update(changes)
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def test_runs_in_the_shape_of_radnet_are_read(tmp_path: Path) -> None:
    results, declaration = import_study(radnet_like(tmp_path / "runs.json"), tmp_path / "study")
    assert read_declaration(tmp_path / "study" / "study.json") == declaration
    cells = {(cell.study, cell.task, cell.initialisation, cell.protocol, cell.fraction) for cell in results.cells()}
    assert ("E3", "LiTS", "scratch", "fine-tuning, training noise 2.5e-3", 1.0) in cells
    assert ("E2", "body region", "RadNet-12M", "fine-tuning", 0.001) in cells
    cell = next(cell for cell in results.cells() if cell.initialisation == "RadNet-1.28M")
    assert results.per_seed(cell, "accuracy") == pytest.approx({0: 0.95, 1: 0.951, 2: 0.952, 3: 0.953})
    report = write_report(tmp_path / "study").with_name("report.md").read_text(encoding="utf-8")
    assert "RUB synthetic (x3.807) | made up" in report
    assert "Of 78 comparisons with ImageNet, 2 are shown" in report
    assert "76 of them were not run and count as p = 1" in report
    page = (tmp_path / "study" / "report" / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"<text[^>]*>[+−]?[0-9.]+e", page)  # no axis for comparisons of which none was run


def test_a_run_that_is_there_twice_or_named_otherwise_is_refused(tmp_path: Path) -> None:
    key = "E1|PT_SimCLR_I1k_FT_R"
    twice = radnet_like(tmp_path / "twice.json", **{key: [["PT_SimCLR_I1k_FT_R", {"acc": 0.9}]] * 2})
    with pytest.raises(DataError, match="has 2 rows for"):
        import_study(twice, tmp_path / "study")
    for name, change in {
        "task": {"E1|PT_SimCLR_I1k_FT_X9": []},
        "shape": {key: [["run"]]},
        "key": {"runs": []},
    }.items():
        with pytest.raises(DataError, match=rf"{name}\.json"):
            import_study(radnet_like(tmp_path / f"{name}.json", **change), tmp_path / "study")
    (tmp_path / "cut.json").write_text('{"E1|PT')
    with pytest.raises(DataError, match=r"cut\.json cannot be read as JSON"):
        import_study(tmp_path / "cut.json", tmp_path / "study")


def test_damaged_declarations_end_in_one_sentence(study: Path) -> None:
    file = study / "study.json"
    whole = file.read_text(encoding="utf-8")
    for damaged in (whole[:100], "{}", whole.replace('"title"', '"name"'), whole.replace('"format": 1', '"format": 9')):
        file.write_text(damaged, encoding="utf-8")
        with pytest.raises(DataError, match=r"study\.json"):
            write_report(study)


def test_an_interpolated_population_by_hand() -> None:
    """Half way from (0, 1) to (2, 5): mean 3; both spreads 1, so the slope's variance is 2 / 4; 1 + (4 + 1) / 2."""
    found = interpolated_population(Interpolation("half", ("a", "b"), (0.0, 2.0), 1.0), [0.0, 2.0], [4.0, 6.0])
    assert found == pytest.approx([3 - 3.5**0.5, 3 + 3.5**0.5])


def test_numbers_as_they_are_printed() -> None:
    assert [fixed(x) for x in (95.11500000000001, -13.714999999999999, 0.004, -0.004)] == [
        "95.12",
        "-13.72",
        "0.00",
        "0.00",
    ]
    assert fixed(1.0, 1, signed=True) == "+1.0" and fixed(float("nan")) == "–"
    assert [p_value(p) for p in (0.0, 0.00049, 0.0005, 0.0256)] == ["<0.0005", "<0.0005", "0.001", "0.026"]
    assert interval(-0.5, 0.25, Metric("Dice", scale=100)) == "-50.00 to +25.00"


def test_latex_escapes_and_keeps_its_columns() -> None:
    table = Table("50 % & more_", ("a", "b"), (("x_1", "-0.5 ± 0.1"), ("y", "<0.0005")), 1, bold=frozenset((0,)))
    text = latex_table(table)
    assert text.count(r" \\") == 4
    assert r"\textbf{x\_1} & \textbf{$-0.5$ $\pm$ 0.1} \\" in text
    assert r"\caption{50 \% \& more\_.}" in text and r"\begin{longtable}{lr}" in text
    assert latex_text("$<#") == r"\$$<$\#"
