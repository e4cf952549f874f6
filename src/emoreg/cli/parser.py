"""Builds an argparse parser for a command from its function's signature, type hints and docstring.

jsonargparse was no alternative: its options have underscores, its flags take a value (--json true), and only its
messages say which option is unknown. The commands wrap the library's functions, since importing those takes 1.7 s, for
torch.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import shutil
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, NoReturn, Union, get_args, get_origin, get_type_hints

from emoreg.config.setting_types import path_of
from emoreg.config.strict_yaml import decimal_number, whole_number
from emoreg.config.training import Device
from emoreg.errors import SettingError, UserError, nearest, shortened

# Parameters before `*` become arguments, parameters after it options; a dataclass becomes an option per field. Returns
# the exit code; None means 0.
Command = Callable[..., int | None]


class Shown(NamedTuple):
    """How the help shows a parameter; use it in an annotation, as in `Annotated[Path, Shown("DIR")]`."""

    metavar: str | None = None
    help: str | None = None
    """For parameters that several commands share. All others are described in their command's docstring."""


class SettingsOf(NamedTuple):
    """Marks the parameter that receives a recipe's settings, as words such as "--training.epochs=5"."""

    recipe: type


class Group(NamedTuple):
    """A command with subcommands: `emoreg`, `emoreg data` and `emoreg runs`."""

    description: str
    commands: Mapping[str, Command | Group]
    examples: Sequence[str]


Folder = Annotated[Path, Shown("DIR")]
File = Annotated[Path, Shown("FILE")]
DeviceName = Annotated[Device, Shown(help="auto uses the first accelerator, or else the CPU")]
Quiet = Annotated[bool, Shown(help="show no progress")]
METAVARS: dict[Any, str] = {int: "N", float: "X", bool: "{true,false}"}


def find(group: Group, prog: str, arguments: Sequence[str]) -> tuple[Command | Group, str, Sequence[str]]:
    """Return the command that the arguments name, its full name, and its own arguments.

    Raises:
        UserError: unknown command; names the closest match.
    """
    if not arguments or arguments[0].startswith("-"):
        return group, prog, arguments
    name, *rest = arguments
    prog = f"{prog} {name}"
    if name not in group.commands:
        raise UserError(f"no command '{prog.partition(' ')[2]}'{nearest(name, group.commands)}")
    command = group.commands[name]
    return find(command, prog, rest) if isinstance(command, Group) else (command, prog, rest)


def run(command: Command, prog: str, arguments: Sequence[str]) -> int:
    """Parse the arguments of a command, call it, and return the exit code.

    Raises:
        UserError: missing, unknown or malformed arguments; names the closest match for an unknown option.
    """
    import docstring_parser

    doc = docstring_parser.parse(command.__doc__ or "", docstring_parser.DocstringStyle.GOOGLE)
    examples = [line for example in doc.examples for line in (example.description or "").splitlines()]
    parser = Parser(prog, doc.description or "", examples)
    texts = {each.arg_name: each.description for each in doc.params}
    classes: dict[str, Any] = {}  # by parameter, for parameters that are dataclasses
    rest = None  # the parameter that receives a recipe's settings
    hints = get_type_hints(command, include_extras=True)
    for name, parameter in inspect.signature(command).parameters.items():
        (kind, *_), mark = _kinds(hints[name])
        if isinstance(mark, SettingsOf):
            rest = name
            parser.usage = f"{parser.format_usage().partition(': ')[2].rstrip()} [--SETTING VALUE ...]"
            _add_section(parser, name, mark.recipe)
        elif dataclasses.is_dataclass(kind):
            classes[name] = kind
            _add_fields(parser, kind)
        else:
            is_option = parameter.kind is inspect.Parameter.KEYWORD_ONLY
            _add(parser, name, hints[name], parameter.default, texts.get(name), is_option)
    values = parser.parse(arguments, rest)
    for name, kind in classes.items():
        given = {field.name: values.pop(field.name) for field in dataclasses.fields(kind)}
        try:
            values[name] = kind(**given)
        except SettingError as error:
            raise UserError(f"{_flag(error.key)}: {error.reason}") from None
    return command(**values) or 0


def group_parser(group: Group, prog: str) -> Parser:
    """Return a parser whose help lists the group's commands, each with the first line of its docstring."""
    width = max(map(len, group.commands)) + 3
    lines = [f"  {name:{width}}{_summary(command)}" for name, command in group.commands.items()]
    parser = Parser(prog, group.description, group.examples)
    parser.usage = f"{prog} COMMAND ..."
    parser.description = "\n".join((parser.description or "", "", "commands:", *lines))
    return parser


class Parser(argparse.ArgumentParser):
    """Raises UserError where argparse would exit, and names the closest match for an unknown option.

    Args:
        prog: full name of the command.
        description: paragraphs, wrapped to the terminal's width.
        examples: command lines, shown verbatim.
    """

    def __init__(self, prog: str, description: str, examples: Sequence[str]) -> None:
        width = max(shutil.get_terminal_size().columns - 2, 11)  # as in argparse
        super().__init__(
            prog,
            description="\n\n".join(textwrap.fill(paragraph, width) for paragraph in description.split("\n\n")),
            epilog="\n  ".join(("examples:", *examples)),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self._flags = ["--help"]

    def add(self, name: str, **options: Any) -> None:
        """Call `add_argument`, and remember the option for suggestions."""
        self._flags += self.add_argument(name, **options).option_strings

    def parse(self, arguments: Sequence[str], rest: str | None = None) -> dict[str, Any]:
        """Return the values of all parameters by name. `rest` gets the arguments that belong to none.

        Raises:
            UserError: a missing or malformed argument; without `rest`, also one that belongs to no parameter.
        """
        namespace, strays = self.parse_known_args(arguments)
        values = vars(namespace)
        if rest is not None:
            return values | {rest: [*(values[rest] or ()), *strays]}
        for word in strays:
            if word.startswith("-"):
                option = word.partition("=")[0]
                raise UserError(f"unknown option '{option}'{nearest(option, self._flags)}")
        if strays:
            self.error(f"unexpected argument '{strays[0]}'")
        return values

    def print_help(self, file: Any = None) -> None:
        """Print the help to stdout, but unlike argparse raise the error of a closed pipe."""
        print(self.format_help(), end="")

    def error(self, message: str) -> NoReturn:
        """Raise UserError."""
        raise UserError(f"{message} (see {self.prog} --help)")


def _add(parser: Parser, name: str, hint: Any, default: Any, text: str | None, is_option: bool) -> None:
    """Add a parameter to the parser. `default` is inspect.Parameter.empty if it is required."""
    kinds, shown = _kinds(hint)
    kind, is_required = kinds[-1], default is inspect.Parameter.empty
    options = _value_options(kind)
    options["help"] = _help(text or shown.help, None if is_required or bool in kinds else default)
    if "type" in options:
        options["metavar"] = shown.metavar or METAVARS.get(kind) or (None if is_option else name.upper())
    if bool in kinds and kind is not bool:  # bool | str: a flag that may have a value
        options |= {"nargs": "?", "const": True}
    is_list = get_origin(kind) is Sequence
    if not is_required:
        options["default"] = default
    elif is_list:
        options["nargs"] = "+"
    if is_option:
        if is_list:
            options["action"] = _Extend
        parser.add(_flag(name), dest=name, required=is_required, **options)
    else:
        if not is_required:
            options.setdefault("nargs", "?")
        parser.add(name, **options)


def _value_options(kind: Any) -> dict[str, Any]:
    """Return the options of `add_argument` for reading a value of this type."""
    if kind is bool:
        return {"action": "store_true"}
    if get_origin(kind) is Literal:
        return {"choices": get_args(kind)}
    if get_origin(kind) is Sequence:
        (element,) = get_args(kind)
        return {"type": _READ.get(element, element), "nargs": "*"}
    return {"type": _READ.get(kind, kind)}


def _whole(text: str) -> int:
    if (number := whole_number(text)) is None:
        raise argparse.ArgumentTypeError(f"must be a whole number in plain digits, not {shortened(text)!r}")
    return number


def _number(text: str) -> float:
    if (number := decimal_number(text)) is None:
        raise argparse.ArgumentTypeError(f"must be a number in plain digits, not {shortened(text)!r}")
    return number


_READ: dict[Any, Callable[[str], Any]] = {
    int: _whole,  # as in recipes, where 010 and 1_000 are refused
    float: _number,
    Path: lambda text: path_of(text, "path"),
}


class _Extend(argparse.Action):
    """Collects a list given in several parts, as in `--with A --with B`. The first part replaces the default."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        before = getattr(namespace, self.dest)
        setattr(namespace, self.dest, [*(() if before is self.default else before), *values])


def _add_fields(parser: Parser, settings: Any) -> None:
    """Add an option for each field of a settings class, described by the docstring below the field."""
    texts, hints = _field_texts(settings), get_type_hints(settings)
    for field in dataclasses.fields(settings):
        _add(parser, field.name, hints[field.name], field.default, texts[field.name], is_option=True)


def _add_section(parser: Parser, dest: str, section: Any, prefix: str = "", defaults: Any = None) -> None:
    """Add an option for each setting of a recipe, such as --training.epochs; `dest` gets the words of all of them."""
    group = parser.add_argument_group(f"{prefix.rstrip('.')}: {_summary(section)}" if prefix else _summary(section))
    texts, hints = _field_texts(section), get_type_hints(section)
    defaults = section() if defaults is None else defaults
    for field in dataclasses.fields(section):
        key, default = f"{prefix}{field.name}", getattr(defaults, field.name)
        (kind, *_), _ = _kinds(hints[field.name])
        if dataclasses.is_dataclass(kind):
            _add_section(parser, dest, kind, f"{key}.", default)
        if dataclasses.is_dataclass(kind) and default is not None:
            text = f"settings of {key} as a YAML mapping"
        else:
            text = _help(texts[field.name], {None: "null", (): "[]"}.get(default, default))
        choices = f"{{{','.join(get_args(kind))}}}" if get_origin(kind) is Literal else None
        group.add_argument(
            f"--{key}",
            dest=dest,
            action="append",
            type=f"--{key}={{}}".format,
            metavar=choices or METAVARS.get(kind, "VALUE"),
            help=text,
        )


def _kinds(hint: Any) -> tuple[list[Any], Any]:
    """Return the types that a value may have besides None, and the mark in its annotation."""
    if get_origin(hint) is Annotated:
        kind, mark = get_args(hint)
        return _kinds(kind)[0], mark
    if get_origin(hint) in (UnionType, Union):
        kinds = [kind for kind in get_args(hint) if kind is not NoneType]
        return _kinds(kinds[0]) if len(kinds) == 1 else (kinds, Shown())
    return [hint], Shown()


def _summary(described: Any) -> str:
    text = described.description if isinstance(described, Group) else inspect.cleandoc(described.__doc__)
    return text.partition("\n")[0].rstrip(".")


def _field_texts(settings: Any) -> dict[str, str | None]:
    """Return the docstring of each field of a class."""
    import docstring_parser

    return {each.arg_name: each.description for each in docstring_parser.parse_from_object(settings).params}


def _help(text: str | None, default: Any) -> str:
    text = " ".join((text or "").split()).rstrip(".").replace("%", "%%")
    if default is None or default in ("", ()):
        return text
    return f"{text} (default: {json.dumps(default) if isinstance(default, bool | tuple) else default})".lstrip()


def _flag(name: str) -> str:
    """Return the option for a parameter: "--from" for `from_`, "--per-image" for `per_image`."""
    return f"--{name.rstrip('_').replace('_', '-')}"
