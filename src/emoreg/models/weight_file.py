"""Loading a file of weights into a backbone: safetensors, or PyTorch's format with `weights_only`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from emoreg.errors import SettingError, first_few, shortened
from emoreg.runtime.safe_io import require_regular

NESTED = ("state_dict_ema", "state_dict", "model_ema", "model")  # keys under which training scripts keep weights
PREFIXES = ("module.", "_orig_mod.")  # added by DataParallel and torch.compile
HEADS = ("head.", "head_dist.", "fc.", "classifier.", "emotional_head.")  # layers that a backbone does not have


def load_weight_file(model: nn.Module, path: str) -> None:
    """Load the weights of a backbone; weights of a classification head are ignored.

    Args:
        model: changed in place.
        path: of the file.

    Raises:
        SettingError: no such file, or damaged; weights of another architecture, or of other sizes.
    """
    weights = _read(Path(path))
    for prefix in PREFIXES:
        consume_prefix_in_state_dict_if_present(weights, prefix)
    wanted = model.state_dict()
    missing = [name for name in wanted if name not in weights and not name.endswith("num_batches_tracked")]
    unknown = [name for name in weights if name not in wanted and not name.startswith(HEADS)]
    for difference, names in (("it lacks", missing), ("it also has", unknown)):
        if names:
            reason = f"{path} holds weights of another architecture: {difference} {first_few(names)}"
            raise SettingError("weights", reason)
    for name, tensor in wanted.items():
        if name in weights and weights[name].shape != tensor.shape:
            sizes = f"{tuple(weights[name].shape)}, not {tuple(tensor.shape)}"
            raise SettingError("weights", f"{path} holds weights of another size: {name} is {sizes}")
    model.load_state_dict({name: weights.get(name, tensor) for name, tensor in wanted.items()})


def _read(path: Path) -> dict[str, Tensor]:
    """Read a file's tensors by name. Raise SettingError if there is no such file, or it holds anything else."""
    import torch
    from safetensors.torch import load_file

    try:
        require_regular(path)
        content: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # on broken bytes, readers raise nearly anything
        reason = getattr(error, "strerror", None) or shortened(str(error), 200)
        raise SettingError("weights", f"{path} cannot be read: {reason}") from None
    for key in NESTED:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if (
        not isinstance(content, dict)
        or not content
        or not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items())
    ):
        raise SettingError("weights", f"{path} does not hold a state dict, as module.state_dict() returns it")
    return content
