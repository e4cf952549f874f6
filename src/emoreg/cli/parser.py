"""The parser of every command: its errors are for people, and its examples stand as they are written."""

from __future__ import annotations

import argparse
import re
from typing import Any

from emoreg.errors import UserError, nearest


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        stray = re.search(r"unrecognized arguments: (-[^\s=]+)", message)
        if stray:
            raise UserError(f"unknown option '{stray[1]}'{nearest(stray[1], self._option_string_actions)}")
        raise UserError(f"{message} (see {self.prog} --help)")


def command_parser(prog: str, description: str, examples: str, usage: str | None = None) -> argparse.ArgumentParser:
    """A parser that ends in UserError, not in exit."""
    return _Parser(
        prog=prog,
        usage=usage,
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
