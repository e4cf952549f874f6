from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from emoreg.cli import main as cli
from emoreg.data.tools import pack as packing
from emoreg.runtime.signals import Stopped


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*arguments: object) -> tuple[int, str, str]:
        code = cli.main(["data", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_without_a_command_the_commands_are_listed(run: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = run()
    assert code == 0
    assert all(name in out for name in ("list", "verify", "show", "pack"))


@pytest.mark.parametrize("command", ["list", "verify", "show", "pack"])
def test_every_command_has_help_with_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["data", command, "--help"])
    assert ended.value.code == 0 and f"emoreg data {command}" in capsys.readouterr().out.split("examples:")[1]


def test_list_shows_every_set_in_80_columns(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "oasis.zip").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run("list", "--root", ".")
    assert code == 0 and max(map(len, out.splitlines())) <= 80
    for word in ("emoset", "118,102", "vcc.tech/EmoSet", "cifar100", "hf:OWNER/NAME[/CONFIG]", "imageemotion.org"):
        assert word in out
    assert "oasis.zip" in "".join(out.split()) and "no, not in" in out


def test_list_gives_json(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    (tmp_path / "oasis.zip").touch()
    code, out, _ = run("list", "--root", tmp_path, "--json")
    entries = {entry["name"]: entry for entry in json.loads(out)}
    assert code == 0
    assert entries["oasis"]["here"] == [{"root": str(tmp_path / "oasis.zip"), "pack_of_pixels": None}]
    assert entries["emoset"]["here"] == [] and entries["emoset"]["kind"] == "stimuli"
    assert set(entries["oasis"]) >= {"title", "size", "labels", "licence", "source", "layout", "needs_files"}


def test_verify_exits_with_0_for_a_clean_set_and_1_for_problems(
    run: Callable[..., tuple[int, str, str]], image_folder: Path
) -> None:
    code, out, err = run("verify", "folder", "--root", image_folder, "--quiet")
    assert code == 0 and "32 images" in out and err == ""
    for number in range(3):
        (image_folder / "train" / "red" / f"{number:04}.png").write_bytes(b"broken")
    code, out, _ = run("verify", "folder", "--root", image_folder, "--quiet", "--show", 2)
    assert code == 1
    assert "red/0001.png" in out and "red/0002.png" not in out and "and 1 more" in out


def test_verify_gives_json_with_all_problems(run: Callable[..., tuple[int, str, str]], image_folder: Path) -> None:
    code, out, _ = run("verify", "folder", "--root", image_folder, "--quiet", "--json")
    assert code == 0 and json.loads(out)["clean"] is True
    (image_folder / "train" / "red" / "0000.png").write_bytes(b"broken")
    code, out, _ = run("verify", "folder", "--root", image_folder, "--quiet", "--json", "--show", 0)
    found = json.loads(out)
    assert code == 1 and found["clean"] is False and found["unreadable"][0][0] == "train/red/0000.png"
    assert found["counts"]["red"] == {"train": 12, "test": 4} and found["leaks"] == []


def test_show_writes_a_picture(run: Callable[..., tuple[int, str, str]], image_folder: Path, tmp_path: Path) -> None:
    out_file = tmp_path / "new" / "sheet.png"
    code, out, _ = run("show", "folder", "--root", image_folder, "--out", out_file, "--count", 9)
    assert code == 0 and out.strip() == str(out_file)
    assert Image.open(out_file).size[0] > 800


def test_show_names_letters_that_no_font_has(
    run: Callable[..., tuple[int, str, str]], image_folder: Path, tmp_path: Path
) -> None:
    for split in ("train", "test"):
        (image_folder / split / "red").rename(image_folder / split / "\U0001f9ff\U00016f1f")  # no machine has Miao here
    code, _, err = run("show", "folder", "--root", image_folder, "--out", tmp_path / "sheet.png")
    assert code == 0 and re.search("no installed font has .*\U00016f1f", err)


def test_pack_prints_its_speed_and_how_to_use_the_pack(
    run: Callable[..., tuple[int, str, str]], image_folder: Path, tmp_path: Path
) -> None:
    code, out, _ = run(
        "pack", "folder", "--root", image_folder, "--image-size", 8, "--out", tmp_path / "pack", "--quiet"
    )
    assert code == 0
    for word in ("32 images of 8x8 pixels", "images/s", "MB/s", f"--target.root {tmp_path / 'pack'}"):
        assert word in out
    code, out, _ = run(
        "pack", "folder", "--root", image_folder, "--image-size", 8, "--out", tmp_path / "pack", "--quiet"
    )
    assert code == 0 and "was packed before" in out


def test_packs_are_written_to_the_folder_data(
    run: Callable[..., tuple[int, str, str]], image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, _ = run("pack", "folder", "--root", image_folder, "--image-size", 8, "--quiet")
    assert code == 0 and (tmp_path / "data" / "folder-8px" / "pack.json").is_file()


@pytest.mark.parametrize(
    ("error", "code", "reason"), [(KeyboardInterrupt, 130, "interrupted"), (Stopped, 143, "stopped by a signal")]
)
def test_an_interrupted_pack_says_how_to_resume(
    error: type[KeyboardInterrupt],
    code: int,
    reason: str,
    run: Callable[..., tuple[int, str, str]],
    image_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object) -> None:
        raise error

    monkeypatch.setattr(packing, "_finish", interrupted)
    ended = run("pack", "folder", "--root", image_folder, "--image-size", 8, "--out", tmp_path / "p", "--quiet")
    assert ended == (code, "", f"emoreg: {reason}; run the same command again to resume\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lsit"], r"no command 'data lsit' (did you mean 'list'?)"),
        (["list", "--root", "nowhere"], "--root: nowhere is not a folder"),
        (["verify"], "the following arguments are required: SET (see emoreg data verify --help)"),
        (["verify", "oasis"], "oasis is not in the folder data: give --root (get it from:"),
        (["verify", "oasis", "--root", "nowhere"], "--root: nowhere does not exist"),
        (["verify", "oasis", "--show", "-1"], "--show is -1; it must not be negative"),
        (["verify", "oasiss"], "no set 'oasiss' (did you mean 'oasis'?)"),
        (["show", "procedural", "--count", "0"], "--count is 0; it must lie between 1 and 400"),
        (["show", "procedural", "--seed", "-1"], "--seed is -1"),
        (["show", "procedural", "--out", "sheet.pdf"], "--out: sheet.pdf must end in .png"),
        (["pack", "oasis"], "the following arguments are required: --image-size"),
        (["pack", "procedural", "--image-size", "32"], "nothing to pack"),
        (
            ["pack", "digits", "--image-size", "x"],
            "argument --image-size: must be a whole number in plain digits, not 'x'",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    run: Callable[..., tuple[int, str, str]],
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments)
    assert code == 2 and out == ""
    assert err.startswith(f"emoreg: {message}") or message in err
    assert err.count("\n") == 1


def test_list_does_not_import_torch(tmp_path: Path) -> None:
    program = (
        "import sys; from emoreg.cli import main as cli; code = cli.main(['data', 'list', '--root', sys.argv[1]]); "
        "sys.exit(code or int('torch' in sys.modules or 'pandas' in sys.modules))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(cli.__file__).parents[2]), *sys.path])}
    ended = subprocess.run([sys.executable, "-c", program, tmp_path], env=environment, check=False)
    assert ended.returncode == 0
