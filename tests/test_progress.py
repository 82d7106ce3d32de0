"""Progress of long work, and lines that stay lines."""

import errno
import pickle
import subprocess

import pytest
from rich.markup import escape
from torch.utils.data import DataLoader, Dataset

from ome.errors import UserError, shell_word
from ome.faults import disk_fault
from ome.geo.raster_file import UnreadableError
from ome.progress import console, pace, print_table, say_once


@pytest.mark.parametrize(("rate", "text"), [(34.23, "34.2/s"), (1.0, "1.0/s"), (0.025, "40.0 s each")])
def test_work_slower_than_one_a_second_is_given_in_seconds_of_each(rate: float, text: str) -> None:
    assert pace(rate) == text


@pytest.mark.parametrize(
    "name", ["a[b].tif", "[old] x", "forest [dense]", "[/]x[/b]", "[link=x]", "a:car:b", "[#1]"]
)
def test_brackets_and_colons_of_names_are_text(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    if "[/]" not in name:  # which ends a style
        console.print(f"[bold]cam[/] -> runs/{name}/cam", highlight=False)
        assert capsys.readouterr().out == f"cam -> runs/{name}/cam\n"
    console.print(f"[yellow]{escape(name)}[/]")
    assert capsys.readouterr().out == f"{name}\n"
    console.print(name, markup=False)
    assert capsys.readouterr().out == f"{name}\n"
    say_once(name)
    say_once(name)
    assert capsys.readouterr().out == f"{name}\n"
    assert_table_shows(name, capsys)


@pytest.mark.parametrize("name", ["roof [red]", "[bold]", "[/red]"])
def test_tables_take_styles_in_names_for_text(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert_table_shows(name, capsys)


def assert_table_shows(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_table(name, [name, "tiles"], [[name, "2"]])
    assert capsys.readouterr().out.count(name) == 3


def test_a_narrow_screen_cuts_no_cell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The ends of settings and paths are what differs."""
    monkeypatch.setattr(console, "_width", 40)
    names = ["segmenter.recipe.weighting=none", "segmenter.recipe.weighting=continuous"]
    print_table("three seeds", ["settings", "compared with", "mIoU"], [[*names, "39.04 ± 0.69"]], texts=2)
    lines = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    columns = ["".join(cell.strip() for cell in column) for column in zip(*lines, strict=True)]
    assert [column.replace(" ", "") for column in columns] == [*names, "39.04±0.69"]


UNSEEN = ["a\nb", "a\r\nb", "a\tb", "\x1b[31mred", "\x7f", "a\x85b", "a\u2028b", "\u202egpj.tif"]


@pytest.mark.parametrize("name", UNSEEN)
def test_control_characters_of_names_are_printed_as_escapes(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = repr(name)[1:-1].replace(r"\x85", r"\u0085")
    error = pickle.loads(pickle.dumps(UserError(f"{name} is no folder", "two")))
    assert str(error) == f"{line} is no folder\ntwo"
    assert f"{line} (Permission" in str(disk_fault(PermissionError(errno.EACCES, "no", name)))
    say_once(name)
    console.print(f"[yellow]{escape(name)}[/]")
    print_table(None, ["class"], [[name]])
    assert capsys.readouterr().out.count(line) == 3


class Broken(Dataset[int]):
    """Fails as a file does that is damaged."""

    def __getitem__(self, index: int) -> int:
        """Fails."""
        try:
            int("inner\nlines")
        except ValueError as error:
            raise UnreadableError("a.tif is damaged: copy it\nError: x", "two") from error

    def __len__(self) -> int:
        """One."""
        return 1


def test_an_error_of_a_process_that_loads_data_is_its_message() -> None:
    with pytest.raises(UnreadableError) as raised:
        list(DataLoader(Broken(), num_workers=1))
    assert raised.value.args == (r"a.tif is damaged: copy it\nError: x", "two")


@pytest.mark.parametrize("name", [*UNSEEN, "plain", "it's", "a\\n'\n$x`", "é\n"])
def test_a_printed_word_is_typed_on_one_line(name: str) -> None:
    word = shell_word(name)
    assert len(word.splitlines()) == 1
    command = ["bash", "-c", f"printf %s {word}"]
    read = subprocess.run(command, capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"})
    assert read.stdout.decode() == name
