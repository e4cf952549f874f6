"""A file of weights for a backbone: safetensors, or PyTorch's, of which nothing but tensors is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from emoreg.errors import SettingError, shortened

NESTED = ("state_dict_ema", "state_dict", "model_ema", "model")  # where training scripts keep weights, timm's first
PREFIXES = ("module.", "_orig_mod.")  # of wrappers: DataParallel's and torch.compile's
SHOWN = 3  # names in a message


def load_weight_file(model: nn.Module, path: str) -> None:
    """Load the weights of a backbone, which has no head; those of a head are left out.

    Args:
        model: changed in place.
        path: of the file.

    Raises:
        SettingError: no such file, or damaged; weights of another architecture, or of other sizes.
    """
    found = {_without_prefix(name): tensor for name, tensor in _read(Path(path)).items()}
    wanted = model.state_dict()
    missing = [name for name in wanted if name not in found and not name.endswith("num_batches_tracked")]
    heads = tuple(f"{name}." for name in ("head", "head_dist", "fc", "classifier", "emotional_head"))
    unknown = [name for name in found if name not in wanted and not name.startswith(heads)]
    for what, names in (("it lacks", missing), ("it has besides", unknown)):
        if names:
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            reason = f"{path} holds weights of another architecture: {what} {', '.join(names[:SHOWN])}{more}"
            raise SettingError("weights", reason)
    for name, tensor in wanted.items():
        if name in found and found[name].shape != tensor.shape:
            sizes = f"{tuple(found[name].shape)}, not {tuple(tensor.shape)}"
            raise SettingError("weights", f"{path} holds weights of another size: {name} is {sizes}")
    model.load_state_dict({name: found.get(name, tensor) for name, tensor in wanted.items()})


def _without_prefix(name: str) -> str:
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by their names. SettingError if there is none, or it holds anything else."""
    import torch
    from safetensors.torch import load_file

    try:
        if not path.is_file():
            raise SettingError("weights", f"there is no file {path}")
        content: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except SettingError:
        raise
    except Exception as error:  # on broken bytes, readers raise nearly anything
        raise SettingError("weights", f"{path} cannot be read: {shortened(str(error), 200)}") from None
    for key in NESTED:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not content or not all(isinstance(value, Tensor) for value in content.values()):
        raise SettingError("weights", f"{path} holds no weights by name, as module.state_dict() gives them")
    return content
