"""Says which edition of the method a file of the user's own is read as."""

from __future__ import annotations

from pathlib import Path

from emoreg.config.read_recipe import has_edition
from emoreg.config.recipe import EDITION
from emoreg.errors import printable
from emoreg.runtime import launch_env
from emoreg.runtime.streams import tell


def say_edition(file: Path) -> None:
    """Print a line for the YAML file of a recipe or study that does not say its edition."""
    if launch_env.rank() == 0 and not has_edition(file):
        line = f"emoreg: {file}: edition {EDITION} of the method; write 'edition: {EDITION}' to keep it"
        tell(printable(line))
