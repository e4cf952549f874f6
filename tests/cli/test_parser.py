from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from emoreg.cli import data, export, inference, stages, study
from emoreg.cli.parser import Command, Folder, Group, Quiet, SettingsOf, Shown, find, group_parser, run
from emoreg.config.recipe import TrainRecipe
from emoreg.data.tools.contact_sheet import draw_sheet
from emoreg.errors import SettingError, UserError


@dataclass(frozen=True)
class Frame:
    """How a picture is framed."""

    line_width: float = 0.5
    """Width of the line, in points."""
    is_round: bool = False
    """Round corners."""

    def __post_init__(self) -> None:
        if self.line_width < 0:
            raise SettingError("line_width", "must not be negative")


called: dict[str, Any] = {}


def draw(
    source: Path,
    images: Annotated[Sequence[Path], Shown("IMAGE")] = (),
    *,
    to: Folder,
    from_: str | None = None,
    style: Literal["line", "dot"] = "line",
    count: int = 3,
    cluster: Annotated[bool | str, Shown("ADDRESS")] = False,
    frame: Frame,
    quiet: Quiet = False,
) -> int:
    """Draw pictures of 100 % of the images.

    All of them, in one
    go.

    Args:
        source: where from
        to: where to
        from_: the first image.
        style: how
        count: how many

    Examples:
        emoreg draw here --to there     # as it is written
        emoreg draw here --to there --count 5
    """
    called.update(locals())
    return 7


def values(*arguments: str) -> dict[str, Any]:
    called.clear()
    assert run(draw, "emoreg draw", arguments) == 7
    return called


def help_of(command: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as ended:
        run(command, f"emoreg {command.__name__}", ["--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_parameters_have_the_defaults_of_the_signature() -> None:
    assert values("here", "--to", "there") == {
        "source": Path("here"),
        "images": (),
        "to": Path("there"),
        "from_": None,
        "style": "line",
        "count": 3,
        "cluster": False,
        "frame": Frame(),
        "quiet": False,
    }


def test_values_have_the_types_of_the_annotations() -> None:
    given = values(
        *("here", "a.png", "b.png", "--to=there", "--from", "x", "--style", "dot", "--count", "-1", "--quiet"),
        *("--line-width", "2", "--is-round", "--cluster", "auto"),
    )
    assert given["images"] == [Path("a.png"), Path("b.png")] and given["from_"] == "x"
    assert (given["style"], given["count"], given["quiet"]) == ("dot", -1, True)
    assert given["frame"] == Frame(2.0, True) and given["cluster"] == "auto"
    assert values("here", "--to", "there", "--cluster")["cluster"] is True
    assert values("here", "--to=~/there")["to"] == Path.home() / "there"  # shells do not expand this ~


def test_an_argument_with_a_default_may_be_left_out() -> None:
    def show(source: Path | None = None, *, count: int = 3) -> int:
        """Show.

        Args:
            source: where from
            count: how many
        """
        called.update(locals())
        return 0

    for arguments, source in (((), None), (("here", "--count", "2"), Path("here"))):
        assert run(show, "emoreg show", arguments) == 0
        assert called["source"] == source


def test_help_comes_from_the_docstring_the_annotations_and_the_fields(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = help_of(draw, capsys, monkeypatch)
    assert "Draw pictures of 100 % of the images.\n\nAll of them, in one go.\n" in shown
    assert shown.endswith(
        "examples:\n  emoreg draw here --to there     # as it is written\n  emoreg draw here --to there --count 5\n"
    )
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    for line in (
        "SOURCE where from",
        "--to DIR where to",
        "--from FROM_ the first image",
        "--style {line,dot} how (default: line)",
        "--count N how many (default: 3)",
        "--line-width X Width of the line, in points (default: 0.5)",
        "--is-round Round corners",
        "--quiet show no progress",
    ):
        assert line in lines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: SOURCE, --to (see emoreg draw --help)"),
        (["here", "--to", "there", "--cuont=2"], "unknown option '--cuont' (did you mean '--count'?)"),
        (
            ["here", "--to", "there", "--line-widht", "2"],
            "unknown option '--line-widht' (did you mean '--line-width'?)",
        ),
        (["here", "--to", "there", "--line-width", "-2"], "--line-width: must not be negative"),
        (
            ["here", "--to", "there", "--count", "x"],
            "argument --count: must be a whole number in plain digits, not 'x' (see emoreg draw --help)",
        ),
        (["here", "--to"], "argument --to: expected one argument (see emoreg draw --help)"),
        (["here", "--t", "there"], "the following arguments are required: --to (see emoreg draw --help)"),
    ],
)
def test_errors_are_one_line_and_suggest_options(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError) as raised:
        run(draw, "emoreg draw", arguments)
    assert str(raised.value) == message


def test_settings_of_a_recipe_are_options_that_the_command_receives_as_words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words: list[str] = []

    def train(recipe: Path, *, out: Folder, settings: Annotated[Sequence[str], SettingsOf(TrainRecipe)]) -> None:
        """Train."""
        words[:] = settings

    given = ["--training.epochs", "5", "r.yaml", "--optimizer.lr=-1", "--target.root", "my photos", "--x=1"]
    assert run(train, "emoreg train", ["--out", "x", *given]) == 0
    assert words == ["--training.epochs=5", "--optimizer.lr=-1", "--target.root=my photos", "--x=1"]

    shown = " ".join(help_of(train, capsys, monkeypatch).split())
    assert shown.startswith("usage: emoreg train [-h] --out DIR RECIPE [--SETTING VALUE ...] Train.")
    assert "--training.epochs N Passes" in shown and "--encoder.backbone.name VALUE" in shown
    assert "--augment.flip {true,false}" in shown and "(default: false)" in shown
    assert "--regulation.mode {none,fixed,random,learned,random_learned,transfer,embp,bel,liaenn}" in shown


def test_a_command_of_a_group_is_found_by_its_name_and_listed_with_its_first_line() -> None:
    inner = Group("Look after things.\n\nMore of it.", {"draw": draw}, ("emoreg things draw",))
    outer = Group("All.", {"things": inner, "draw": draw}, ("emoreg draw",))
    assert find(outer, "emoreg", ["things", "draw", "x"]) == (draw, "emoreg things draw", ["x"])
    assert find(outer, "emoreg", ["things", "--help"]) == (inner, "emoreg things", ["--help"])
    with pytest.raises(UserError, match=r"no command 'things darw' \(did you mean 'draw'\?\)"):
        find(outer, "emoreg", ["things", "darw"])
    shown = group_parser(outer, "emoreg").format_help()
    assert "commands:\n  things   Look after things\n  draw     Draw pictures of 100 % of the images\n" in shown


def library() -> list[tuple[Callable[..., Any], Callable[..., Any]]]:
    from emoreg.inference.demo import serve
    from emoreg.inference.explain.explain import explain
    from emoreg.inference.predict import predict
    from emoreg.stages.evaluate import evaluate
    from emoreg.study.run_study import run_study

    return [
        (stages.evaluate, evaluate),
        (inference.predict, predict),
        (inference.explain, explain),
        (export.demo, serve),
        (study.study, run_study),
        (data.show, draw_sheet),
    ]


def test_commands_have_the_defaults_of_the_functions_that_they_call() -> None:
    translated = ("out", "ray")
    compared = 0
    for command, function in library():
        defaults = inspect.signature(function).parameters
        for name, parameter in inspect.signature(command).parameters.items():
            if name in defaults and parameter.kind is inspect.Parameter.KEYWORD_ONLY and name not in translated:
                assert parameter.default == defaults[name].default, f"{command.__name__}: {name}"
                compared += 1
    assert compared > 12
