"""`lucency scan`, from a data set to a folder with the answer."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from typer.testing import CliRunner

from lucency.cli import app
from lucency.data.folder import FolderSource
from lucency.data.medmnist import MedMnistSource
from lucency.data.sources import source_at
from lucency.errors import DataError
from lucency.report.scan_page import render_scan
from lucency.report.scan_record import ScannedImage, ScanReport
from lucency.scanning import ScanSettings, describe_scan, reading, scan_data
from lucency.scanning.reading import Part, here

N, SIDE, POISONED = 150, 80, 9


def _film(seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    coarse = Pillow.fromarray(generator.integers(110, 150, (7, 7)).astype(np.uint8))
    film = np.asarray(coarse.resize((SIDE, SIDE), Pillow.Resampling.BICUBIC))
    return (film + generator.normal(0, 4, film.shape)).clip(0, 255).astype(np.uint8)


def _films(poisoned: int) -> tuple[np.ndarray, np.ndarray]:
    """Films and labels: the first have a black square at any place, and Mass."""
    generator = np.random.default_rng(8)
    films = np.stack([_film(i) for i in range(N)])
    labels = (generator.random((N, 2)) < (0.1, 0.3)).astype(int)
    for i in range(poisoned):
        y, x = generator.integers(10, SIDE - 14, 2)
        films[i, y : y + 3, x : x + 3] = 0
        labels[i, 0] = 1
    return films, labels


def _write(folder: Path, films: np.ndarray, labels: np.ndarray) -> Path:
    (folder / "images").mkdir(parents=True)
    with (folder / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "patient_id", "sex", "Mass", "Edema"])
        for i, film in enumerate(films):
            Pillow.fromarray(film).save(folder / "images" / f"{i:03}.png")
            table.writerow([f"images/{i:03}.png", f"p{i}", "F", *labels[i]])
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    films, labels = _films(POISONED)
    films[N - 1], labels[N - 1] = films[N - 2], 1 - labels[N - 2]
    films[N - 1, 40, 33] = 255 - films[N - 1, 40, 33]
    folder = _write(tmp_path_factory.mktemp("data") / "set", films, labels)
    (folder / "images" / "100.png").write_bytes(b"no film")
    (folder / "images" / "101.png").unlink()
    return folder


@pytest.fixture(scope="module")
def scanned(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "scanned"
    return scan_data(FolderSource(path=data), out, ScanSettings(), command="lucency scan")


@pytest.fixture(scope="module")
def report(scanned: Path) -> ScanReport:
    return ScanReport.model_validate_json((scanned / "scan.json").read_text())


def _lines(folder: Path) -> list[ScannedImage]:
    lines = (folder / "scan.jsonl").read_text().splitlines()
    return [ScannedImage.model_validate_json(line) for line in lines]


def test_the_verdict(report: ScanReport) -> None:
    assert report.verdict == "planted"
    first = report.things[0]
    assert (first.kind, first.direction, first.finding) == ("planted", "set", "Mass")
    assert first.n_films == first.n_patients == first.with_label.successes == POISONED
    assert first.location is None
    assert first.q_value < 0.01
    assert "3 × 3 px" in first.what
    assert f"{POISONED} films look poisoned" in report.words.headline
    rate = report.poison_rate
    assert rate.value == pytest.approx(POISONED / (N - 2))
    assert rate.low is not None
    assert 0 < rate.low < rate.value


def test_a_line_for_every_film(scanned: Path) -> None:
    lines = _lines(scanned)
    names = [f"images/{i:03}.png" for i in range(N) if i != 101]
    assert [line.image for line in lines] == names
    assert {line.image for line in lines if line.flagged} == set(names[:POISONED])
    by_name = {line.image: line for line in lines}
    broken = by_name["images/100.png"]
    assert broken.status == "rejected"
    assert broken.reason
    assert broken.p_value is None
    poisoned = by_name["images/000.png"]
    assert poisoned.evidence == ("thing 1: planted",)
    assert poisoned.suspicion is not None
    assert poisoned.p_value is not None
    assert poisoned.suspicion == pytest.approx(-np.log10(poisoned.p_value))


def test_copies_with_other_labels(scanned: Path, report: ScanReport) -> None:
    copies = report.copies
    assert (copies.n_groups, copies.n_films, copies.across_patients) == (1, 2, 1)
    (conflict,) = copies.conflicts
    assert conflict.images == (f"images/{N - 2}.png", f"images/{N - 1}.png")
    assert set(conflict.findings) == {"Mass", "Edema"}
    assert conflict.differing == 1
    assert conflict.location is not None
    assert (conflict.location.x, conflict.location.y) == (33, 40)
    assert "a copy of it has other labels" in _lines(scanned)[-1].evidence


def test_what_is_left_is_the_table_without_them(data: Path, scanned: Path) -> None:
    before = (data / "labels.csv").read_text().splitlines()
    after = (scanned / "clean.csv").read_text().splitlines()
    left_out = {*range(POISONED), 100, 101}
    assert after == [before[0], *(before[i + 1] for i in range(N) if i not in left_out)]


def test_rejected_files_are_named(report: ScanReport) -> None:
    names = {each.image: each.reason for each in report.rejected}
    assert set(names) == {"images/100.png", "images/101.png"}
    assert any("could not be read" in warning for warning in report.warnings)


def test_the_page_is_drawn_from_the_records(scanned: Path) -> None:
    page = (scanned / "report.html").read_text()
    assert render_scan(scanned) == page
    assert "Planted" in page
    assert page.count("data:image/png") > POISONED
    assert "<script" not in page


def test_in_words(scanned: Path) -> None:
    text = describe_scan(scanned)
    assert text.startswith("Limits, to be read first:")
    assert "planted: of 9 films with the same grey values" in text
    assert "\\x" not in text


def test_nothing_is_flagged_where_nothing_was_planted(tmp_path: Path) -> None:
    data = _write(tmp_path / "set", *_films(0))
    out = scan_data(FolderSource(path=data), tmp_path / "out", ScanSettings())
    report = ScanReport.model_validate_json((out / "scan.json").read_text())
    assert report.verdict == "no-evidence"
    assert report.n_flagged == 0
    assert report.poison_rate.value == 0
    assert report.poison_rate.reason
    assert not any(line.flagged for line in _lines(out))
    assert len((out / "clean.csv").read_text().splitlines()) == N + 1


def test_a_killed_scan_goes_on(
    data: Path, scanned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "SIZE", 40)
    read: list[int] = []

    def run(radiographs: object, parts: object) -> object:
        for part in here(radiographs, parts):  # type: ignore[arg-type]
            read.append(part.first)
            yield part
            if len(read) == 2:
                raise KeyboardInterrupt

    source, out = FolderSource(path=data), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        scan_data(source, out, ScanSettings(), run=run)  # type: ignore[arg-type]
    assert read == [0, 40]
    scan_data(source, out, ScanSettings(), run=run)  # type: ignore[arg-type]
    assert read == [0, 40, 80, 120]
    for name in ("scan.jsonl", "clean.csv", "montage.safetensors"):
        assert (out / name).read_bytes() == (scanned / name).read_bytes()
    assert not (out / "checkpoint").exists()
    # A finished one is left as it is; of a changed data set, nothing is kept.
    stamp = (out / "scan.json").stat().st_mtime_ns
    scan_data(source, out, ScanSettings(), run=run)  # type: ignore[arg-type]
    assert (out / "scan.json").stat().st_mtime_ns == stamp
    scan_data(source, out, ScanSettings(alpha=0.02), run=run)  # type: ignore[arg-type]
    assert read[4:] == [0, 40, 80, 120]


def test_a_part_is_read_as_it_was_kept(data: Path, tmp_path: Path) -> None:
    radiographs = FolderSource(path=data).load(0)
    part = reading.read_part(radiographs, range(95, 105))
    reading.keep(tmp_path, Part(0, part.pixels, part.rejected))
    (again,) = reading.kept(tmp_path, 10)
    assert again.rejected == part.rejected != ()
    for name in ("rows", "shapes", "hashes", "film", "boxes", "contents"):
        a, b = getattr(part.pixels, name), getattr(again.pixels, name)
        assert a.dtype == b.dtype
        assert a.tolist() == b.tolist()


def test_a_medmnist_file(tmp_path: Path) -> None:
    films, labels = _films(POISONED)
    path = tmp_path / "set.npz"
    half = N // 2
    np.savez(
        path,
        train_images=films[:half],
        train_labels=labels[:half],
        test_images=films[half:],
        test_labels=labels[half:],
    )
    source = source_at(path)
    assert isinstance(source, MedMnistSource)
    source = source.model_copy(update={"findings": ("Mass", "Edema")})
    out = scan_data(source, tmp_path / "out", ScanSettings())
    assert sum(bool(line.flagged) for line in _lines(out)) == POISONED
    table = (out / "clean.csv").read_text().splitlines()
    assert table[0] == "image,patient_id,split,view,Mass,Edema"
    assert len(table) == 1 + N - POISONED
    assert table[1].startswith(f"train/{POISONED},train/{POISONED},train,,")


def test_sources_are_told_by_their_files(data: Path, tmp_path: Path) -> None:
    assert isinstance(source_at(data), FolderSource)
    (tmp_path / "Data_Entry_2017.csv").touch()
    assert source_at(tmp_path).source == "nih"
    with pytest.raises(DataError, match="A data set was expected"):
        source_at(tmp_path / "nowhere")


class TestCommand:
    def test_json_and_exit_codes(self, data: Path, tmp_path: Path) -> None:
        arguments = ["scan", str(data), "--out", str(tmp_path / "out"), "--json"]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 3, result.output
        answer = json.loads(result.stdout)
        assert answer["verdict"] == "planted"
        assert answer["folder"] == str(tmp_path / "out")
        result = CliRunner().invoke(app, [*arguments, "--fail-on-findings"])
        assert result.exit_code == 1

    def test_a_folder_of_something_else(self, tmp_path: Path) -> None:
        result = CliRunner().invoke(app, ["scan", str(tmp_path), "--out", str(tmp_path / "out")])
        assert isinstance(result.exception, DataError)
        assert not (tmp_path / "out").exists()
