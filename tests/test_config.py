"""Config files: what is accepted, and the sentence for everything that is not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import Field, field_validator, model_validator

from lucency.config import LIMIT_BYTES, ConfigPath, load_toml
from lucency.errors import ConfigError
from lucency.records import Record


class Patch(Record):
    kind: Literal["patch"]
    size_px: int = Field(3, ge=1)
    poison_rate: float = Field(0.1, ge=0, le=1)


class Blend(Record):
    kind: Literal["blend", "mixed"]
    opacity: float = Field(gt=0, lt=1)


Attack = Annotated[Patch | Blend, Field(discriminator="kind")]


class Data(Record):
    folder: ConfigPath
    table: Path = Path("labels.csv")
    size: tuple[int, int] = (224, 224)
    layout: Literal["nih", "padchest"] = "nih"


class Run(Record):
    seed: int
    data: Data
    attack: Attack
    extra_attacks: tuple[Attack, ...] = ()
    stop: int | Literal["auto"] = "auto"
    weights: dict[str, float] = Field(default_factory=dict)
    name: str | None = None
    is_dry: bool = False
    share: Annotated[float, Field(ge=0, le=1)] | None = None
    crops: tuple[Annotated[float, Field(gt=0)], ...] = ()
    tags: list[str] = Field(default_factory=list, max_length=2)

    @field_validator("name")
    @classmethod
    def _no_slash(cls, name: str | None) -> str | None:
        if name and "/" in name:
            raise ValueError("name must be free of '/'; use a dash")
        return name

    @model_validator(mode="after")
    def _lucky(self) -> Run:
        if self.seed == 13:
            raise ValueError("13 brings bad luck.")
        return self


GOOD = """\
seed = 1
stop = 5

[data]
folder = "films"
size = [64, 64]

[attack]
kind = "patch"
size_px = 2
poison_rate = 0.05

[[extra_attacks]]
kind = "blend"
opacity = 0.5

[weights]
Mass = 2
"""


def read(tmp_path: Path, text: str | bytes) -> Run:
    path = tmp_path / "run.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_toml(path, Run)


def sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | bytes) -> str:
    monkeypatch.chdir(tmp_path)
    Path("run.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        load_toml(Path("run.toml"), Run)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_good_file_and_its_paths(tmp_path: Path) -> None:
    run = read(tmp_path, GOOD)
    assert run.data.folder == tmp_path / "films"
    assert run.data.table == Path("labels.csv")
    assert isinstance(run.attack, Patch)
    assert run.weights == {"Mass": 2.0}
    assert read(tmp_path, b"\xef\xbb\xbf" + GOOD.encode()) == run


def test_config_path_is_relative_to_the_file_not_to_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "run.toml").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    assert load_toml(Path("deep/run.toml"), Run).data.folder == tmp_path / "deep" / "films"
    (tmp_path / "run.toml").write_text(GOOD.replace('"films"', '"/films"'))
    assert load_toml(Path("run.toml"), Run).data.folder == Path("/films")
    assert Data.model_validate({"folder": "x"}).folder == Path("x")


CASES = [
    (
        "poison_rate = 0.05",
        "poison_rate = 5",
        "poison_rate must be in [0, 1], got 5 (run.toml, [attack]); "
        "give a fraction, not a percentage.",
    ),
    (
        "poison_rate = 0.05",
        "posion_rate = 0.05",
        "unknown key 'posion_rate' in [attack] of run.toml; did you mean 'poison_rate'?",
    ),
    (
        'folder = "films"',
        'fodler = "films"',
        "unknown key 'fodler' in [data] of run.toml; did you mean 'folder'?",
    ),
    ("seed = 1", "sede = 1", "unknown key 'sede' in run.toml; did you mean 'seed'?"),
    (
        "seed = 1",
        "seed = 1\nzzz = 1",
        "unknown key 'zzz' in run.toml; known keys: attack, crops, data, extra_attacks, "
        "is_dry, name, seed, share, stop, tags, weights.",
    ),
    ("seed = 1", "", "the key 'seed' is missing in run.toml; add it."),
    ('folder = "films"\n', "", "the key 'folder' is missing in [data] of run.toml; add it."),
    (
        '[data]\nfolder = "films"\nsize = [64, 64]',
        "",
        "the table [data] is missing (run.toml); add it.",
    ),
    (
        'kind = "patch"',
        'kind = "pach"',
        "kind must be one of 'patch', 'blend', 'mixed', got 'pach' (run.toml, [attack]); "
        "did you mean 'patch'?",
    ),
    (
        'kind = "patch"\n',
        "",
        "the key 'kind' is missing in [attack] of run.toml; "
        "add kind = one of 'patch', 'blend', 'mixed'.",
    ),
    (
        "opacity = 0.5",
        "opacity = 1.0",
        "opacity must be in (0, 1), got 1.0 (run.toml, entry 1 of [[extra_attacks]]); "
        "give a fraction, not a percentage.",
    ),
    (
        'kind = "blend"\n',
        "",
        "the key 'kind' is missing in entry 1 of [[extra_attacks]] of run.toml; "
        "add kind = one of 'patch', 'blend', 'mixed'.",
    ),
    (
        "size_px = 2",
        "size_px = 0",
        "size_px must be at least 1, got 0 (run.toml, [attack]); "
        "give a value within these bounds.",
    ),
    (
        "size_px = 2",
        "size_px = 2.5",
        "size_px must be a whole number, got 2.5 (run.toml, [attack]); give digits only.",
    ),
    (
        "size_px = 2",
        "size_px = true",
        "size_px must be a whole number, got true (run.toml, [attack]); "
        "give digits only.",
    ),
    (
        "poison_rate = 0.05",
        'poison_rate = "0.05"',
        "poison_rate must be a number, got '0.05' (run.toml, [attack]); write it without quotes.",
    ),
    (
        "poison_rate = 0.05",
        "poison_rate = nan",
        "poison_rate must be a finite number, got nan (run.toml, [attack]); "
        "give a number other than nan and inf.",
    ),
    (
        "size = [64, 64]",
        'size = [64, "a"]',
        "size[1] must be a whole number, got 'a' (run.toml, [data]); "
        "give digits only.",
    ),
    (
        "size = [64, 64]",
        "size = [64]",
        "size[1] is missing (run.toml, [data]); give all values of the array.",
    ),
    (
        "size = [64, 64]",
        'layout = "padchst"',
        "layout must be one of 'nih', 'padchest', got 'padchst' (run.toml, [data]); "
        "did you mean 'padchest'?",
    ),
    (
        "size = [64, 64]",
        "table = 3",
        "table must be text, got 3 (run.toml, [data]); put it in quotes.",
    ),
    ("stop = 5", "stop = 'now'", "stop must be a whole number or 'auto', got 'now' (run.toml)."),
    (
        "Mass = 2",
        "Mass = 'x'",
        "Mass must be a number, got 'x' (run.toml, [weights]); write it without quotes.",
    ),
    ("seed = 1", "seed = 1\nname = 'a/b'", "name must be free of '/'; use a dash (run.toml)."),
    ("seed = 1", "seed = 13", "13 brings bad luck (run.toml)."),
    (
        "[weights]\nMass = 2",
        "[attack.weights]\nMass = 2",
        "unknown key 'weights' in [attack] of run.toml; known keys: kind, poison_rate, size_px.",
    ),
    ("seed = 1", "seed = 1\nshare = 30",
     "share must be in [0, 1], got 30 (run.toml); give a fraction, not a percentage."),
    ("seed = 1", "seed = 1\ncrops = [0.5, -1]",
     "crops[1] must be greater than 0, got -1 (run.toml); give a value within these bounds."),
    ("seed = 1", "seed = 1\ntags = ['a', 'b', 'c']",
     "tags must be valid: List should have at most 2 items after validation, not 3, "
     "got an array of 3 (run.toml); correct the value."),
    ("seed = 1", "seed = 1979-05-27",
     "seed must be a whole number, got '1979-05-27' (run.toml); give digits only."),
    ("size = [64, 64]", '"a b" = 1', "unknown key 'a b' in [data] of run.toml; "
     "known keys: folder, layout, size, table."),
    ("seed = 1", "seed = = 1", "run.toml is not valid TOML: Invalid value (at line 1, column 8); "
     "correct that line."),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "expected"), CASES)
def test_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, expected: str
) -> None:
    assert old in GOOD
    assert sentence(tmp_path, monkeypatch, GOOD.replace(old, new, 1)) == expected


def test_table_where_a_value_belongs_and_the_other_way_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "seed = {}\nattack = 1\ndata = []\n"
    lines = sentence(tmp_path, monkeypatch, text).splitlines()
    assert lines[0].startswith("seed must be a whole number, got a table (run.toml)")
    assert lines[1].startswith("data must be a table, got an array of 0 (run.toml)")
    assert lines[2].startswith("attack must be a table, got 1 (run.toml)")


def test_several_faults_a_line_each_and_no_more_than_five(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = GOOD.replace("seed = 1", "seed = 'a'").replace("size_px = 2", "size_px = 0")
    assert len(sentence(tmp_path, monkeypatch, two).splitlines()) == 2
    many = GOOD.replace("seed = 1", "seed = 1\n" + "\n".join(f"zz{i} = 1" for i in range(9)))
    lines = sentence(tmp_path, monkeypatch, many).splitlines()
    assert len(lines) == 6
    assert lines[-1] == "(and 4 more in run.toml)"


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    os.mkfifo("pipe")
    Path("big").write_bytes(b"#" * (LIMIT_BYTES + 1))
    Path("latin").write_bytes(b"seed = 1\n# caf\xe9\n")
    Path("deep").write_text("a = " + "[" * 5000)
    Path("deep2").write_text("a = " + "{a.a = " * 250 + "1" + "}" * 250)
    Path("deep3").write_text(".".join("a" * 500_000) + " = 1")
    Path("hex").write_text("seed = 0x" + "f" * 9000)
    Path("link").symlink_to("link")
    expected = {
        "none": "none does not exist",
        "folder": "got a folder",
        "pipe": "pipe or a device",
        "big": "at most 1 MiB",
        "latin": "byte 0xe9 in line 2",
        "deep": "nests too deeply",
        "deep2": "nests too deeply",
        "deep3": "nests too deeply",
        "hex": "is not valid TOML: Exceeds the limit",
        "link": "cannot be read",
        "nul\0": "cannot be read",
    }
    for name, words in expected.items():
        with pytest.raises(ConfigError, match=words):
            load_toml(Path(name), Run)


def test_nothing_from_the_file_reaches_the_terminal_raw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = GOOD + '[[extra_attacks]]\nkind = "\\u001b[2J\\u202e\\n"\n"\\u001b[31m\\n" = 1\n'
    assert all(c.isprintable() or c == "\n" for c in sentence(tmp_path, monkeypatch, text))
    long = GOOD.replace("seed = 1", "seed = '" + "x" * 5000 + "'")
    assert len(sentence(tmp_path, monkeypatch, long)) < 250


PIECES = [
    "=",
    "[",
    "]",
    "[[attack]]",
    '"',
    "'",
    ".",
    "nan",
    "-1",
    "1e999",
    "true",
    "\n",
    "{}",
    "\0",
]
PIECES += ["kind", "\\u0000", "1979-05-27", "seed", "9" * 5000, "patch", "# é", "[data]", "'''"]


@settings(
    max_examples=400,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(
        st.tuples(
            st.integers(0, len(GOOD)), st.integers(0, 12), st.sampled_from(PIECES) | st.text()
        ),
        min_size=1,
        max_size=4,
    )
)
def test_random_edits_are_read_or_explained(
    tmp_path: Path, edits: list[tuple[int, int, str]]
) -> None:
    text = GOOD
    for place, cut, piece in edits:
        text = text[:place] + piece + text[place + cut :]
    try:
        assert isinstance(read(tmp_path, text.encode("utf-8", "surrogatepass")), Run)
    except ConfigError as error:
        message = str(error)
        assert "run.toml" in message
        assert len(message) < 4000
        assert all(line.isprintable() for line in message.splitlines())


@settings(
    max_examples=200,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.binary(max_size=200))
def test_random_bytes_are_read_or_explained(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ConfigError, match=r"run\.toml"):
        read(tmp_path, data)
