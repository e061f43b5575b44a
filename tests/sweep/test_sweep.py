"""A sweep: what it leaves behind, that it repeats itself, and that nothing stops it."""

import json
import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

import polars as pl
import pytest

from lucency.config import load_toml
from lucency.errors import DataError
from lucency.experiment import ExperimentSettings
from lucency.report.record import RunReport
from lucency.report.sweep_record import RunRecord, SweepReport
from lucency.runs import RunFolder, verify
from lucency.sweep.jobs import RECORD, Job
from lucency.sweep.plan import plan
from lucency.sweep.pool import Processes
from lucency.sweep.settings import Cell
from tiny_run import TinyRun, call, contents, finish, start
from tiny_sweep import RECORDS, TABLES, run_here, write_toml

KILLS = int(os.environ.get("LUCENCY_KILLS", "1"))
"""Of the test that kills; 20 before a release."""
RATE = "attack.poison_rate"


def _report(folder: Path) -> SweepReport:
    return SweepReport.model_validate_json((folder / "report.json").read_bytes(), strict=True)


def _records(folder: Path) -> list[RunRecord]:
    return [
        RunRecord.model_validate_json(path.read_bytes(), strict=True)
        for path in sorted(folder.glob(f"runs/*/{RECORD}"))
    ]


def _copied(tiny_sweep, tmp_path: Path) -> Path:
    """A finished sweep to do harm to, in a folder of the same name."""
    return Path(shutil.copytree(tiny_sweep.folder, tmp_path / tiny_sweep.folder.name))


class TestFolder:
    def test_every_promised_file_is_there_and_no_other(self, tiny_sweep) -> None:
        names = contents(tiny_sweep.folder).keys()
        assert {name for name in names if "/" not in name} == TABLES | RECORDS
        runs = {name.split("/", 2)[2] for name in names if name.startswith("runs/")}
        assert runs == {"ledger.parquet", "predictions.parquet", RECORD, "manifest.json"}
        assert len(list(tiny_sweep.folder.glob("runs/*"))) == 4
        assert len(list(tiny_sweep.folder.glob("clean/*/models/clean/weights.safetensors"))) == 2

    def test_all_manifests_verify(self, tiny_sweep) -> None:
        folder = tiny_sweep.folder
        for place in (folder, *folder.glob("runs/*"), *folder.glob("clean/*")):
            assert verify(place) == []

    def test_a_clean_model_is_trained_once_a_seed_and_before_its_runs(self, tiny_sweep) -> None:
        done = tiny_sweep.pool.done
        assert [job.clean is None for job in done] == [True, True, False, False, False, False]
        assert {job.folder for job in done[:2]} == {job.clean for job in done[2:]}

    def test_tables_and_records_agree(self, tiny_sweep) -> None:
        runs = pl.read_parquet(tiny_sweep.folder / "runs.parquet")
        records = {record.digest[:12]: record for record in _records(tiny_sweep.folder)}
        assert runs["seed"].to_list() == [3, 4, 3, 4]
        assert runs["attack.poison_rate"].to_list() == [0.1, 0.1, 0.3, 0.3]
        for row in runs.iter_rows(named=True):
            record = records[row["run"]]
            (main,) = (s for s in record.attack_success if s.operating_point == "specificity-0.95")
            assert row["success"] == main.backdoored.value
            assert row["success_n"] == main.backdoored.trials
            assert row["n_poisoned"] == record.attack.n_poisoned
            ledger = pl.read_parquet(tiny_sweep.folder / "runs" / row["run"] / "ledger.parquet")
            assert len(ledger) == record.attack.n_poisoned
        success = pl.read_parquet(tiny_sweep.folder / "success.parquet")
        assert len(success) == 4 * 4
        findings = pl.read_parquet(tiny_sweep.folder / "findings.parquet")
        assert len(findings) == 4 * 2 * 3 * len(_report(tiny_sweep.folder).findings)

    def test_collateral_is_of_findings_with_enough_films(self, tiny_sweep) -> None:
        findings = pl.read_parquet(tiny_sweep.folder / "findings.parquet")
        assert set(findings.filter("is_target")["finding"]) == {"Effusion"}
        many = findings.filter(
            ~pl.col("is_target")
            & (pl.col("set") == "TN")
            & (pl.min_horizontal("n_positive", "n_negative") >= 20)
        )
        for point in _report(tiny_sweep.folder).points:
            if point.collateral_finding is None:
                assert many.is_empty()
                assert point.collateral.value is None
                assert "20 films" in (point.collateral.reason or "")
            else:
                assert point.collateral_finding in set(many["finding"])

    def test_the_points_to_paste(self, tiny_sweep) -> None:
        lines = (tiny_sweep.folder / "points.md").read_text(encoding="utf-8").splitlines()
        (rate,) = (p for p in _report(tiny_sweep.folder).points if p.axes[RATE] == 0.3)
        (row,) = (line for line in lines if line.startswith("| poison rate 0.3 |"))
        assert f"| {rate.n_poisoned:.0f} (29.9\N{NO-BREAK SPACE}%) |" in row
        assert f"{rate.success.value:.3f}" in row
        assert len({line.count("|") for line in lines if line.startswith("|")}) == 1
        assert "seeds 3, 4" in lines[-1]

    def test_points_are_means_over_seeds(self, tiny_sweep) -> None:
        runs = pl.read_parquet(tiny_sweep.folder / "runs.parquet")
        points = _report(tiny_sweep.folder).points
        assert [point.axes for point in points] == [
            {"attack.poison_rate": 0.1},
            {"attack.poison_rate": 0.3},
        ]
        for point in points:
            of = runs.filter(pl.col("attack.poison_rate") == point.axes["attack.poison_rate"])
            assert point.seeds == (3, 4)
            assert point.success.value == pytest.approx(of["success"].mean())
            assert point.auroc.value == pytest.approx(of["auroc"].mean())
            assert point.difference.value == pytest.approx(of["auroc_difference"].mean())
        table = pl.read_parquet(tiny_sweep.folder / "points.parquet")
        assert table["success"].to_list() == [point.success.value for point in points]

    def test_a_run_is_what_lucency_run_measures(self, tiny_run: TinyRun, tmp_path: Path) -> None:
        """The same settings, seed and number of threads: the same numbers, digit for digit."""
        sections = re.sub(r"^\[", "[experiment.", tiny_run.toml.read_text(), flags=re.M)
        top, _, rest = sections.partition("[experiment.data]")
        toml = tmp_path / "one.toml"
        toml.write_text(
            f'name = "one"\nseeds = [3]\n[experiment]\n{top.replace("seed = 3", "")}'
            f"[experiment.data]{rest}"
        )
        run_here(toml, tmp_path / "one")
        (record,) = _records(tmp_path / "one")
        report = RunReport.model_validate_json((tiny_run.folder / "report.json").read_bytes())
        assert record.attack_success == report.attack_success
        assert record.performances == report.performances
        assert record.macro_difference == report.macro_difference
        assert record.attack == report.attack


class TestAgain:
    def test_workers_make_the_same_bytes(self, tiny_sweep, tmp_path: Path) -> None:
        out = tmp_path / tiny_sweep.folder.name
        answer = call("sweep", tiny_sweep.toml, "--out", out, "--workers", "2", "--json")
        assert answer.code == 0, answer.err
        assert json.loads(answer.out)["n_runs"] == 4
        assert contents(out) == contents(tiny_sweep.folder)

    def test_a_finished_sweep_is_left_as_it_is(self, tiny_sweep) -> None:
        before = contents(tiny_sweep.folder)
        assert run_here(tiny_sweep.toml, tiny_sweep.folder).done == []
        assert contents(tiny_sweep.folder) == before

    def test_a_wider_grid_does_what_is_new(self, tiny_sweep, tmp_path: Path) -> None:
        out = _copied(tiny_sweep, tmp_path)
        wider = write_toml(tmp_path, ("[0.1, 0.3]", "[0.1, 0.2, 0.3]"))
        done = run_here(wider, out).done
        assert [job.settings.attack.poison_rate for job in done if job.clean] == [0.2, 0.2]
        assert len(_report(out).points) == 3
        assert verify(out) == []
        assert run_here(tiny_sweep.toml, out).done == []
        for name in TABLES:
            assert (out / name).read_bytes() == (tiny_sweep.folder / name).read_bytes()

    def test_a_rotten_run_is_done_again(self, tiny_sweep, tmp_path: Path) -> None:
        out = _copied(tiny_sweep, tmp_path)
        path = min(out.glob("runs/*/predictions.parquet"))
        path.write_bytes(path.read_bytes()[:-1] + b"?")
        done = run_here(tiny_sweep.toml, out).done
        assert [job.folder for job in done if job.clean] == [path.parent]
        assert contents(out) == contents(tiny_sweep.folder)

    def test_a_rotten_table_is_written_again_from_the_runs(self, tiny_sweep, tmp_path) -> None:
        out = _copied(tiny_sweep, tmp_path)
        (out / "points.parquet").write_bytes(b"rotten")
        assert run_here(tiny_sweep.toml, out).done == []
        assert contents(out) == contents(tiny_sweep.folder)

    def test_models_are_kept_where_that_is_asked_for(self, tmp_path: Path) -> None:
        toml = write_toml(
            tmp_path,
            ("seeds = [3, 4]", "seeds = [3]\nkeep_models = true"),
            ("[0.1, 0.3]", "[0.3]"),
            ("epochs = 2", "epochs = 1"),
        )
        run_here(toml, tmp_path / "sweep")
        (card,) = (tmp_path / "sweep").glob("runs/*/models/backdoored/model.toml")
        assert "Backdoored on purpose" in card.read_text()


class TestFailures:
    def test_a_run_that_fails_fails_alone_and_is_tried_again(self, tiny_sweep, tmp_path) -> None:
        out = _copied(tiny_sweep, tmp_path)
        grid = '"attack.poison_rate" = [0.1, 0.3]'
        cases = "".join(
            f'[[cases]]\nname = "{name}"\nsettings = {{ "attack.{key}" = {value} }}\n'
            for name, key, value in (("ok", "poison_rate", 0.1), ("many", "poison_count", 9999))
        )
        toml = write_toml(tmp_path, ("[grid]\n", ""), (grid, cases))
        for _ in range(2):
            answer = call("sweep", toml, "--out", out, "--workers", "1")
            assert answer.code == 3
            assert "2 runs failed" in answer.out
            assert "failed: case = many, seed 3: [attack] poison_count = 9999 asks" in answer.out
            assert not (out / "manifest.json").exists()
            assert [point.axes for point in _report(out).points] == [{"case": "ok"}]
        assert "poison_count = 9999" in (out / "report.html").read_text()

    def test_nothing_is_reported_if_all_fail(self, tmp_path: Path) -> None:
        toml = write_toml(tmp_path, ('"attack.poison_rate" = [0.1, 0.3]',
                                     '"attack.poison_count" = [9999]'))  # fmt: skip
        with pytest.raises(DataError, match=r"none of 2; the first, .*asks for 9999 victims"):
            run_here(toml, tmp_path / "sweep")

    def test_a_second_process_says_who_holds_the_lock(self, tiny_sweep, tmp_path: Path) -> None:
        with RunFolder.at(tmp_path / "sweep"):
            answer = call("sweep", tiny_sweep.toml, "--out", tmp_path / "sweep")
        assert answer.code == 4
        assert f"in use by process {os.getpid()} " in answer.err

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (("--gpus", "0.5"), "--gpus needs --ray"),
            (("--workers", "0"), "'--workers'"),
            (("--data", "."), "--data needs a data set that is read from a path"),
        ],
    )
    def test_a_wrong_option_is_named(self, tiny_sweep, tmp_path, options, said) -> None:
        answer = call("sweep", tiny_sweep.toml, "--out", tmp_path / "sweep", *options)
        assert answer.code == 2
        assert said in answer.err

    def test_a_process_that_dies_takes_one_job_with_it(self, tiny_sweep, tmp_path: Path) -> None:
        first, second = _jobs(tiny_sweep, tmp_path)
        pool = Processes(1)
        try:
            pool.submit(first)
            pool.submit(second)
            deadline = time.monotonic() + 60
            while not first.folder.exists():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            ((worker, _),) = pool._busy.values()
            worker.process.kill()
            lost, done = pool.next(), pool.next()
        finally:
            pool.close()
        assert lost.job == first
        assert lost.error is not None
        assert "died (exit code -9)" in lost.error
        assert done == (second, None)
        assert verify(second.folder) == []


def _jobs(tiny_sweep, folder: Path) -> tuple[Job, Job]:
    """The clean models of two seeds."""
    of = {job.settings.seed: job.settings for job in tiny_sweep.pool.done}
    planned = plan([Cell({}, of[3]), Cell({}, of[4])], folder, "cpu", keep_models=False)
    first, second = planned.clean.values()
    return first, second


@pytest.mark.parametrize("n", range(KILLS))
def test_killed_at_any_moment_it_goes_on(tiny_sweep, tmp_path: Path, n: int) -> None:
    """kill -9, workers left to notice by themselves: the same bytes, no finished run redone."""
    out = tmp_path / tiny_sweep.folder.name
    process = start("sweep", tiny_sweep.toml, "--out", out, "--workers", "2")
    deadline = time.monotonic() + 120
    while not list(out.glob("clean/*")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(random.Random(n).uniform(0, 12))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finished = {p: p.stat().st_mtime_ns for p in out.glob("*/*/manifest.json")}
    answer = finish(start("sweep", tiny_sweep.toml, "--out", out, "--workers", "2"))
    assert answer.code == 0, answer.err
    assert contents(out) == contents(tiny_sweep.folder)
    assert {p: p.stat().st_mtime_ns for p in finished} == finished


def test_settings_of_a_run_stand_in_its_manifest(tiny_sweep) -> None:
    """They can be given to `lucency run` again."""
    for manifest in tiny_sweep.folder.glob("runs/*/manifest.json"):
        config = json.loads(manifest.read_text())["config"]
        config = {"name": "again", **config}
        assert ExperimentSettings.model_validate_json(json.dumps(config)).seed in (3, 4)


def test_the_demo_of_the_docs_is_a_sweep() -> None:
    """Every sweep under examples/ is one."""
    from lucency.sweep import SweepSettings
    from lucency.sweep.settings import expand

    folder = Path(__file__).resolve().parents[2] / "examples" / "sweeps"
    found = sorted(folder.glob("*.toml"))
    assert found
    for path in found:
        assert expand(load_toml(path, SweepSettings), folder, path.name)
