"""Tells users which edition of the method their file is read as."""

from __future__ import annotations

from pathlib import Path

from emoreg.config.read_recipe import has_edition
from emoreg.config.recipe import EDITION
from emoreg.errors import printable
from emoreg.runtime import launch_env
from emoreg.runtime.streams import tell


def say_edition(file: Path) -> None:
    """Print the edition that is assumed for the YAML file of a recipe or study, if the file does not name one."""
    if launch_env.rank() == 0 and not has_edition(file):
        line = f"emoreg: {file}: edition {EDITION} of the method; write 'edition: {EDITION}' to keep it"
        tell(printable(line))
