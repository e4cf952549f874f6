from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from emoreg import __version__
from emoreg.cli import main as cli
from emoreg.config.read_recipe import read_recipe
from emoreg.config.recipe import PretrainRecipe, TrainRecipe
from emoreg.runs.run import Run

COMMANDS = ("quickstart", "pretrain", "train", "evaluate")
STAGE_1 = """\
stimuli: {name: procedural, count: 20, image_size: 16}
backbone: {name: resnet8}
training: {epochs: 1, batch_size: 8, device: cpu, precision: 32-true}
edition: 2
"""
STAGE_2 = """\
target: {name: folder, root: flags, image_size: 16}
backbone: {name: resnet8}
training: {epochs: 1, batch_size: 8, device: cpu, precision: 32-true}
edition: 2
"""


@pytest.fixture
def here(tmp_path: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a user: mine/stage1.yaml, mine/stage2.yaml and the images flags/."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "stage1.yaml").write_text(STAGE_1)
    (tmp_path / "mine" / "stage2.yaml").write_text(STAGE_2)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of each stage on embedded data, made once: runs/stage1 and runs/stage2."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("finished")
    (folder / "stage1.yaml").write_text(STAGE_1)
    (folder / "stage2.yaml").write_text(
        STAGE_2.replace("name: folder, root: flags", "name: digits, limit: 16") + "regulation: {mode: learned}\n"
    )
    assert cli.main(["pretrain", str(folder / "stage1.yaml"), "--out", str(folder / "stage1"), "--quiet"]) == 0
    options = ["--encoder.experience", str(folder / "stage1"), "--out", str(folder / "stage2"), "--quiet"]
    assert cli.main(["train", str(folder / "stage2.yaml"), *options]) == 0
    return folder


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return a function that runs a command, expects exit code 2 and one line on stderr, and returns that line.

    Only lines on how the images were read may precede it.
    """

    def run(*arguments: str) -> str:
        capsys.readouterr()
        assert cli.main(arguments) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        *notes, line, end = captured.err.split("\n")
        assert re.fullmatch("emoreg: .+", line) and not end, captured.err
        assert all(re.match(r"flags: train \d+ images from", note) for note in notes), captured.err
        return f"{line}\n"

    return run


def test_without_arguments_it_lists_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {command} " in shown for command in cli.EMOREG.commands) and "examples:" in shown


@pytest.mark.parametrize("command", [(), *((command,) for command in COMMANDS)])
def test_help_has_examples_that_start_with_the_command(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([*command, "--help"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    examples = shown.partition("examples:\n")[2].splitlines()
    assert examples and all(line.startswith("  " + " ".join(["emoreg", *command])) for line in examples)
    assert "==SUPPRESS==" not in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_the_recipes_in_the_examples_exist_and_take_their_options(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    for line in re.findall(r"emoreg ((?:pre)?train recipes.*)", capsys.readouterr().out):
        assert cli.main([*line.split(), "--print-config"]) == 0


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"emoreg {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], r"no command 'trian' \(did you mean 'train'\?\)"),
        (
            ["help"],
            r"no command 'help' \(known: calibrate, data, .*evaluate, .*, results, runs, study, suites, sweep, train\)",
        ),
        (["--versoin"], r"unknown option '--versoin' \(did you mean '--version'\?\)"),
        (["evaluate"], r"the following arguments are required: RUN \(see emoreg evaluate --help\)"),
        (["evaluate", "x", "--jsn"], r"unknown option '--jsn' \(did you mean '--json'\?\)"),
        (["evaluate", "x", "y"], r"unexpected argument 'y' \(see emoreg evaluate --help\)"),
        (["evaluate", "x", "--device", "tpu"], ".*invalid choice: 'tpu'.*"),
        (["quickstart", "--seed=3"], r"unknown option '--seed' \(did you mean '--seeds'\?\)"),
        (["quickstart", "--seeds", "0"], "--seeds is 0; it must be at least 1"),
        (["quickstart", "--seeds", "x"], ".*--seeds.*'x'.*"),
        (["train"], r"the following arguments are required: RECIPE \(see emoreg train --help\)"),
        (["pretrain", "--smoke"], "the following arguments are required: RECIPE .*"),
        (["train", "mine/stage2.yaml", "again.yaml"], "unexpected argument 'again.yaml'"),
        (["train", "mine/stage2.yaml", "--smok"], r"smok: unknown setting \(did you mean 'smoke'\?\)"),
        (["train", "mine/stage2.yaml", "--print_config"], "print_config: .*'print-config'.*"),
        (["train", "mine/stage2.yaml", "--lr", "1"], r"lr: unknown setting \(did you mean 'optimizer.lr'\?\)"),
        (["train", "mine/stage2.yaml", "--training.epoch=1"], ".*did you mean 'training.epochs'.*"),
        (["train", "--target", "{limt: 5}", "mine/stage2.yaml"], "target.limt: .*did you mean 'target.limit'.*"),
        (["train", "--target={limit: 0, name: digits}", "mine/stage2.yaml"], "target.limit: must be at least 1.*"),
        (["train", "mine/stage2.yaml", "--stimuli.count", "9"], r".*\(it belongs to 'emoreg pretrain'\)"),
        (["train", "nothere.yaml"], "cannot read nothere.yaml: No such file or directory"),
        (["sweep", "nothere.yaml"], "cannot read nothere.yaml: No such file or directory"),  # which is no recipe
        (["train", "mine"], "cannot read mine: Is a directory"),
        (["train", "flags/train/red/0000.png"], "flags/train/red/0000.png:1: not text in UTF-8; .*"),
        (["train", "mine/stage1.yaml"], r"mine/stage1.yaml:1: stimuli: .* \(it belongs to 'emoreg pretrain'\)"),
        (["pretrain", "mine/stage2.yaml"], r"mine/stage2.yaml:1: target: .* \(it belongs to 'emoreg train'\)"),
        (["train", "mine/stage2.yaml", "--regulation.lam", "1.5"], r"regulation.lam: λ must lie in \[0, 1\], not 1.5"),
        (["train", "mine/stage2.yaml", "--regulation.lam", ".nan"], "regulation.lam: .*not nan"),
        (["train", "mine/stage2.yaml", "--optimizer.lr", ".inf"], "optimizer.lr: .*not inf"),
        (["train", "mine/stage2.yaml", "--optimizer.lr", "-0.1"], "optimizer.lr: .*not -0.1"),
        (["train", "mine/stage2.yaml", "--seed", "-1"], "seed: must be at least 0, not -1"),
        (["train", "mine/stage2.yaml", "--target.root", "nothere"], "nothere does not exist; give a folder or a zip"),
        (["train", "mine/stage2.yaml", "--target.root", "mine/stage1.yaml"], ".*neither a folder nor a readable zip.*"),
        (["train", "mine/stage2.yaml", "--target.root", "null"], "target.root: name the folder or zip .*"),
        (
            ["train", "mine/stage2.yaml", "--backbone.name", "resnet81"],
            r"backbone.name: there is no architecture 'resnet81' \(did you mean 'resnet8'\?\)",
        ),
        (
            ["train", "mine/stage2.yaml", "--regulation.mode=learned", "--encoder.experience=runs/none"],
            "encoder.experience: no run folder runs/none; make it with 'emoreg pretrain RECIPE'",
        ),
        (["pretrain", "mine/stage1.yaml", "--stimuli.name", "oasis"], "stimuli.root: name the folder or zip .*"),
        (["evaluate", "nothere"], "nothere is not a run folder: .*"),
        (["evaluate", "flags"], "flags is not a run folder: .*"),
    ],
)
@pytest.mark.usefixtures("here")
def test_bad_input_is_one_line_and_exit_code_2(arguments: list[str], message: str, refused: Callable[..., str]) -> None:
    assert re.fullmatch(f"emoreg: {message}\n", refused(*arguments))


def test_an_empty_class_is_named(here: Path, refused: Callable[..., str]) -> None:
    (here / "flags" / "train" / "green").mkdir()
    assert "flags/train/green holds no images" in refused("train", "mine/stage2.yaml")


def test_an_unreadable_image_is_named_and_skipped_with_a_count_only_on_request(
    here: Path, refused: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "flags" / "train" / "red" / "bad.png").write_text("no image")
    line = refused("train", "mine/stage2.yaml", "--target.validation=0", "--out=first")
    assert "flags/train/red/bad.png" in line and "skip_unreadable: true" in line
    options = ["--target.validation=0", "--target.skip_unreadable=true", "--out=second"]
    assert cli.main(["train", "mine/stage2.yaml", *options]) == 0
    assert "skipped 1 unreadable of 25 images" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
@pytest.mark.usefixtures("here")
def test_a_missing_device_is_an_error(refused: Callable[..., str], finished: Path) -> None:
    assert "training.device is cuda" in refused("train", "mine/stage2.yaml", "--training.device", "cuda")
    assert "cuda" in refused("evaluate", str(finished / "stage2"), "--device", "cuda")


def test_an_out_folder_that_is_not_a_run_or_not_writable_is_refused(
    here: Path, refused: Callable[..., str], finished: Path
) -> None:
    assert "flags is not empty and holds no run" in refused("train", "mine/stage2.yaml", "--out", "flags")
    assert "run folder mine/stage1.yaml: Not a directory" in refused(
        "train", "mine/stage2.yaml", "--out", "mine/stage1.yaml"
    )
    assert "cannot create the run folder" in refused("train", "mine/stage2.yaml", "--out", "mine/stage1.yaml/x")
    assert "holds a run of stage 1" in refused("train", "mine/stage2.yaml", "--out", str(finished / "stage1"))
    line = refused("train", str(finished / "stage2.yaml"), "--out", str(finished / "stage2"), "--training.epochs=2")
    assert "holds a run with other settings (" in line and "training.epochs: 1 -> 2" in line
    assert sorted(path.name for path in here.iterdir()) == ["flags", "mine"]  # nothing was left behind


def test_an_encoder_of_another_architecture_or_stage_is_refused(
    here: Path, refused: Callable[..., str], finished: Path
) -> None:
    train = ["train", "mine/stage2.yaml", "--regulation.mode=learned"]
    line = refused(*train, f"--encoder.experience={finished / 'stage1'}", "--encoder.backbone.name=resnet14")
    assert "another architecture" in line and "resnet8, not resnet14" in line
    assert "is a run of stage 2" in refused(*train, f"--encoder.experience={finished / 'stage2'}")


def test_weights_of_another_architecture_are_refused(
    tmp_path: Path, refused: Callable[..., str], finished: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for file in (path for path in (finished / "stage2").iterdir() if path.is_file()):
        content = file.read_bytes()
        if file.name == "recipe.yaml":
            content = content.replace(b"name: resnet8", b"name: resnet14")
        (run / file.name).write_bytes(content)
    assert "holds weights of another architecture" in refused("evaluate", str(run))


def test_a_run_that_is_not_finished_or_holds_no_classifier_is_not_scored(
    tmp_path: Path, refused: Callable[..., str], finished: Path
) -> None:
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "recipe.yaml").write_text((finished / "stage2" / "recipe.yaml").read_text())
    assert "is not finished" in refused("evaluate", str(tmp_path / "half"))
    assert "stage 1" in refused("evaluate", str(finished / "stage1"))


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (["pretrain", "mine/stage1.yaml", "--seed", "3", "--optimizer.lr=1e-3"], PretrainRecipe),
        (["train", "mine/stage2.yaml", "--target.root", "my photos/写真: 1", "--smoke"], TrainRecipe),
        (["train", "mine/stage2.yaml", "--regulation.mode=learned", "--encoder.backbone.name=resnet8"], TrainRecipe),
    ],
)
def test_print_config_prints_a_recipe_that_can_be_read_back_and_trains_nothing(
    arguments: list[str], kind: type[PretrainRecipe], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*arguments, "--print-config"]) == 0
    (here / "printed.yaml").write_text(capsys.readouterr().out, encoding="utf-8")
    printed = read_recipe(kind, here / "printed.yaml")
    assert cli.main([arguments[0], "printed.yaml", "--print-config"]) == 0
    assert capsys.readouterr().out == (here / "printed.yaml").read_text(encoding="utf-8")
    assert printed != kind() and not (here / "runs").exists()


def test_smoke_runs_both_stages_into_folders_of_their_own(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pretrain", "mine/stage1.yaml", "--smoke", "--quiet"]) == 0
    experience = "runs/mine-stage1-smoke-seed0"
    assert f"run folder: {experience}\n" in capsys.readouterr().out
    options = ["--regulation.mode=learned", f"--encoder.experience={experience}", "--seed=2", "--quiet"]
    assert cli.main(["train", "mine/stage2.yaml", "--smoke", "--training.batch_size", "4", *options]) == 0
    captured = capsys.readouterr()
    assert captured.err == "" and "run folder: runs/mine-stage2-smoke-seed2\n" in captured.out
    assert "accuracy" in captured.out and "lambda" in captured.out
    run = Run(here / "runs" / "mine-stage2-smoke-seed2")
    assert run.is_finished and run.recipe.training.epochs == 1
    assert run.recipe.training.batch_size == 4  # explicit options take precedence over --smoke


def test_the_default_run_folder_is_the_same_for_every_path_to_the_recipe_and_a_second_call_keeps_the_run(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main(["train", str(here / "mine" / "stage2.yaml"), "--quiet"]) == 0
    told = capsys.readouterr().out
    written = {path: path.stat().st_mtime_ns for path in (here / "runs").rglob("*")}
    for path in ("mine/stage2.yaml", "flags/../mine/stage2.yaml"):
        assert cli.main(["train", path, "--quiet"]) == 0
        assert capsys.readouterr().out == told
    assert written == {path: path.stat().st_mtime_ns for path in (here / "runs").rglob("*")}
    assert [path.name for path in (here / "runs").iterdir()] == ["mine-stage2-seed0"]

    folders: list[Path] = []

    def train(_recipe: TrainRecipe, out: Path, **_options: object) -> Run:
        folders.append(out)
        return run

    monkeypatch.setattr("emoreg.stages.classify.train", train)
    run = Run(here / "runs" / "mine-stage2-seed0")
    monkeypatch.chdir(here / "mine")
    assert cli.main(["train", "stage2.yaml", "--quiet"]) == 0
    assert folders == [Path("runs/mine-stage2-seed0")]


def test_images_can_come_from_a_zip_and_from_a_path_with_spaces(
    here: Path, image_zip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "flags").rename(here / "my flags")
    results = []
    for number, root in enumerate(("my flags", image_zip.name)):
        assert cli.main(["train", "mine/stage2.yaml", "--target.root", root, f"--out=out {number}", "--quiet"]) == 0
        results.append(Run(here / f"out {number}").final["test"])
    assert results[0] == results[1]
    capsys.readouterr()
    assert cli.main(["evaluate", "out 0", "--data", image_zip.name, "--json"]) == 0
    scored = json.loads(capsys.readouterr().out)
    assert scored.keys() ^ results[0].keys() == {
        "target",
        "images_per_second",
        "images_trained_on",
        "classes",
        "correct",
        "checksum",
    }
    assert all(scored[key] == value for key, value in results[0].items() if key in scored)


def test_evaluate_prints_json_and_nothing_else(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert cli.main(["evaluate", str(finished / "stage2"), "--json", "--device", "cpu"]) == 0
    metrics = json.loads(capsys.readouterr().out)
    final = Run(finished / "stage2").final["test"]
    assert final.keys() - metrics.keys() == {"correct", "checksum"}  # only in files
    assert all(metrics[key] == value for key, value in final.items() if key in metrics)
    assert metrics["images"] > 0 and metrics["images_per_second"] > 0
    assert cli.main(["evaluate", str(finished / "stage2"), "--quiet"]) == 0
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and "another look" in captured.err  # no progress, but the warning
    assert f"{final['accuracy']:.4f}" in captured.out


@pytest.mark.parametrize(
    ("arguments", "place", "is_resumed"),
    [
        (["train", "mine/stage2.yaml"], "emoreg.stages.classify.train", True),
        (["pretrain", "mine/stage1.yaml"], "emoreg.stages.pretrain.pretrain", True),
        (["evaluate", "x"], "emoreg.stages.evaluate.evaluate", False),
    ],
)
@pytest.mark.usefixtures("here")
def test_an_interrupt_is_one_line_and_exit_code_130(
    arguments: list[str],
    place: str,
    is_resumed: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupt(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(place, interrupt)
    assert cli.main(arguments) == 130
    line = capsys.readouterr().err
    assert line.startswith("emoreg: interrupted") and line.count("\n") == 1
    assert ("; run the same command again to resume" in line) == is_resumed


def test_a_disk_that_fails_anywhere_is_one_line_and_exit_code_2(
    here: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "report.html")

    monkeypatch.setattr("emoreg.stages.classify.train", fail)
    assert refused("train", "mine/stage2.yaml") == "emoreg: No space left on device: report.html\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "command",
    [
        ["--help"],
        ["--version"],
        ["train", "--help"],
        ["train", "mine/stage2.yaml", "--print-config"],
        ["data", "--help"],
        ["data", "list"],
        ["data", "list", "--json"],
    ],
)
def test_a_closed_pipe_is_not_an_error(command: list[str], unbuffered: str, here: Path) -> None:
    """As in `emoreg --help | head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    ended = subprocess.run(
        [sys.executable, "-m", "emoreg", *command],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        cwd=here,
        env=environment,
        check=False,
    )
    os.close(writer)
    assert ended.stderr == "" and ended.returncode == 141


@pytest.mark.skipif(os.name != "posix", reason="closes streams as a shell does")
@pytest.mark.parametrize(
    ("streams", "code", "told"),
    [
        (">&-", 0, ""),
        ("2>&-", 0, ""),
        ("<&- >&- 2>&-", 0, ""),
        pytest.param(
            ">/dev/full",
            2,
            r"emoreg: stdout cannot be written: No space left on device; .*\n",
            marks=pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full here"),
        ),
    ],
)
@pytest.mark.parametrize("command", ["data list", "--version"])
def test_closed_or_full_streams_cause_no_traceback(command: str, streams: str, code: int, told: str) -> None:
    line = f"{sys.executable} -m emoreg {command} {streams}"
    ended = subprocess.run(line, shell=True, capture_output=True, text=True, check=False)
    assert ended.returncode == code and re.fullmatch(told, ended.stderr)


@pytest.mark.thorough
@pytest.mark.parametrize(("streams", "code"), [(">&- 2>&-", 0), ("2>&1 | true", 141)])
def test_a_training_finishes_although_its_terminal_was_closed(streams: str, code: int, here: Path) -> None:
    line = f"{sys.executable} -m emoreg pretrain mine/stage1.yaml --out finished {streams}"
    ended = subprocess.run(
        ["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}"], capture_output=True, text=True, check=False, cwd=here
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, "", "")
    assert Run(here / "finished").final


def test_the_help_can_be_printed_on_a_terminal_without_greek() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "emoreg", "train", "--help"],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        check=False,
    )
    assert ended.returncode == 0 and b"lambda, strictly between 0 and 1" in ended.stdout and ended.stderr == b""
