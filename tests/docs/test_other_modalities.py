"""The examples of docs/other-modalities.md run, with fewer seeds and steps."""

from __future__ import annotations

import logging
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import emoreg

PAGE = (Path(__file__).parents[2] / "docs" / "other-modalities.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"```python title=\"(.+?)\"\n(.*?)```", PAGE, re.DOTALL))
QUICK = ("SEEDS, STEPS, EPOCHS = 8, 40, 3", "SEEDS, STEPS, EPOCHS = 2, 5, 1")


@pytest.fixture(autouse=True)
def _temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)


def run(*names: str) -> dict[str, Any]:
    """Run some of the page's blocks and return the names that they define."""
    space: dict[str, Any] = {"__name__": "__main__"}
    for name in names:
        exec(compile(BLOCKS[name].replace(*QUICK), name, "exec"), space)
    return space


@pytest.mark.extra("dev")
def test_text_with_twins_and_its_report() -> None:
    assert QUICK[0] in BLOCKS["train_text.py"]
    space = run("text.py", "train_text.py")
    assert len(space["runs"]) == 2 * 7
    rows = space["report"].contrasts.set_index("contrast")
    assert not isinstance(rows.loc["label", "missing"], str) and rows.loc["emotion", "missing"] == "rotation"
    assert Path("runs/text/report.html").is_file()


def test_the_tokens_of_a_word_do_not_depend_on_the_words_around_it() -> None:
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(BLOCKS["text.py"].partition("\nlexicon")[0], "text.py", "exec"), space)
    one, both = space["tokens"](["happy", "Happy day"])
    assert torch.equal(one[:5], both[:5]) and one[:5].all() and not one[5:].any()


@pytest.mark.extra("diffusion")  # for transformers and accelerate
def test_text_with_the_trainer() -> None:
    space = run("text.py", "text_with_trainer.py")
    assert isinstance(space["model"], emoreg.RegulatedClassifier)
    assert space["model"].get_parameter("regulation.rho").item() != 0


@pytest.mark.extra("diffusion")
def test_a_text_model_of_transformers_reads_a_dictionary() -> None:
    import transformers

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    pooled = run("pooled.py")["Pooled"]
    config = transformers.BertConfig(vocab_size=32, **sizes)
    networks = [pooled(transformers.BertModel(config)) for _ in range(2)]
    classifier = emoreg.RegulatedClassifier(networks[0], networks[1], 3)
    ids = torch.randint(0, 32, (4, 8))
    response = classifier({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, whole=True)
    emoreg.RegulationLoss(classifier)(response, torch.tensor([0, 1, 2, 0])).backward()
    assert response.logits.shape == (4, 3)
    assert all(network.model.get_input_embeddings().weight.grad.any() for network in networks)


def test_every_example_of_the_page_is_tested_here() -> None:
    tested = {"text.py", "train_text.py", "text_with_trainer.py", "pooled.py", "table_with_lightning.py"}
    assert set(BLOCKS) == tested and PAGE.count("```python") == len(tested)


@pytest.mark.extra("lightning")
def test_a_table_with_lightning(capsys: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("lightning").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        space = run("table_with_lightning.py")
    assert 0.5 < space["right"] <= 1 and "of the test rows" in capsys.readouterr().out
