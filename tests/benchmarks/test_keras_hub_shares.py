"""How much of KerasHub's architectures can be removed at most: the figures of the README.

Each is scaled down in proportion and randomly initialised. The share counts every unit that is free,
although one of each layer must stay. Prints a table; `make bench ARGS="-k hub"`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kprune.formats import open_model
from kprune.pruning import analyse
from kprune.running.flatten import flatten

keras_hub = pytest.importorskip("keras_hub")
MODELS = keras_hub.models


def _decoder(kind: str, vocabulary: int, layers: int, shared: int, inner: int, **more: Any) -> Any:
    return getattr(MODELS, kind)(
        vocabulary_size=vocabulary, num_layers=layers, num_query_heads=8, num_key_value_heads=shared,
        hidden_dim=64, intermediate_dim=inner, **more,
    )  # fmt: skip


ARCHITECTURES: dict[str, Callable[[], Any]] = {
    "BERT base (1/12)": lambda: MODELS.BertBackbone(
        vocabulary_size=2543, num_layers=12, num_heads=4, hidden_dim=64, intermediate_dim=256,
        max_sequence_length=43,
    ),
    "GPT-2 base (1/12)": lambda: MODELS.GPT2Backbone(
        vocabulary_size=4188, num_layers=12, num_heads=4, hidden_dim=64, intermediate_dim=256,
        max_sequence_length=85,
    ),
    "Llama 2 7B (1/64)": lambda: _decoder("LlamaBackbone", 500, 32, 8, 172),
    "Llama 3 8B (1/64)": lambda: _decoder("Llama3Backbone", 2004, 32, 2, 224),
    "Mistral 7B (1/64)": lambda: _decoder("MistralBackbone", 500, 32, 2, 224),
    "Qwen2.5 7B (1/56)": lambda: _decoder("QwenBackbone", 2715, 28, 2, 338),
    "Qwen3 8B (1/64)": lambda: _decoder("Qwen3Backbone", 2374, 36, 2, 192, head_dim=8),
    "Gemma 2B (1/32)": lambda: _decoder("GemmaBackbone", 8000, 18, 1, 1024, head_dim=8),
    "ViT base (1/12)": lambda: MODELS.ViTBackbone(
        image_shape=(48, 48, 3), patch_size=4, num_layers=12, num_heads=4, hidden_dim=64, mlp_dim=256
    ),
    "T5 base (1/12)": lambda: MODELS.T5Backbone(
        vocabulary_size=2677, num_layers=12, num_heads=4, hidden_dim=64, intermediate_dim=256,
        use_gated_activation=False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_share_of_parameters_that_can_go(name: str, tmp_path: Path) -> None:
    saved, plain = tmp_path / "saved.keras", tmp_path / "plain.keras"
    ARCHITECTURES[name]().save(saved)
    flatten(saved, plain, trust=True)
    with open_model(plain) as source:
        analysis = analyse(source)
    free = ~analysis.groups.frozen()
    free[0] = False
    whole = sum(math.prod(tensor.shape) for tensor in analysis.tensors.values())
    left = sum(
        math.prod((axis.size or 1) - int(axis.dead(free).sum()) for axis in weight.axes)
        for weight in analysis.weights
    )
    print(f"\n{name:<20} {whole:>10,} parameters, {100 * (1 - left / whole):5.1f} % can go at most")
    assert 0.3 < 1 - left / whole < 1
