"""How much of KerasHub's architectures can be removed at most: the figures of the README.

Each is scaled down in proportion and randomly initialised. The share counts every unit that is free,
although one of each layer must stay. Prints a table; `make bench ARGS="-k hub"`.

They are built in a process of its own: this one would keep TensorFlow, and the memory of what
`test_speed.py` starts is counted from what its parent has.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def decoder(
    models: Any, kind: str, vocabulary: int, layers: int, shared: int, inner: int, **more: Any
) -> Any:
    return getattr(models, kind)(
        vocabulary_size=vocabulary, num_layers=layers, num_key_value_heads=shared, hidden_dim=64,
        intermediate_dim=inner, **{"num_query_heads": 8, **more},
    )  # fmt: skip


ARCHITECTURES: dict[str, Any] = {
    "BERT base (1/12)": lambda m: m.BertBackbone(
        vocabulary_size=2543, num_layers=12, num_heads=4, hidden_dim=64, intermediate_dim=256,
        max_sequence_length=43,
    ),
    "GPT-2 base (1/12)": lambda m: m.GPT2Backbone(
        vocabulary_size=4188, num_layers=12, num_heads=4, hidden_dim=64, intermediate_dim=256,
        max_sequence_length=85,
    ),
    "Llama 2 7B (1/64)": lambda m: decoder(m, "LlamaBackbone", 500, 32, 8, 172),
    "Llama 3 8B (1/64)": lambda m: decoder(m, "Llama3Backbone", 2004, 32, 2, 224),
    "Mistral 7B (1/64)": lambda m: decoder(m, "MistralBackbone", 500, 32, 2, 224),
    "Qwen2.5 7B (1/56)": lambda m: decoder(m, "QwenBackbone", 2715, 28, 2, 338),
    "Qwen3 8B (1/64)": lambda m: decoder(m, "Qwen3Backbone", 2374, 36, 2, 192, head_dim=8),
    "Gemma 2B (1/32)": lambda m: decoder(m, "GemmaBackbone", 8000, 18, 1, 1024, head_dim=8),
    "Gemma 3 1B (1/18)": lambda m: decoder(
        m, "Gemma3Backbone", 14564, 26, 1, 384, num_query_heads=4, head_dim=14, image_size=None,
        use_query_key_norm=True, use_post_ffw_norm=True, use_post_attention_norm=True,
    ),
    "ViT base (1/12)": lambda m: m.ViTBackbone(
        image_shape=(48, 48, 3), patch_size=4, num_layers=12, num_heads=4, hidden_dim=64, mlp_dim=256
    ),
    "T5 base (1/12)": lambda m: m.T5Backbone(
        vocabulary_size=2677, num_layers=12, num_heads=4, hidden_dim=64, intermediate_dim=256,
        use_gated_activation=False,
    ),
    "T5 1.1 base (1/12)": lambda m: m.T5Backbone(
        vocabulary_size=2677, num_layers=12, num_heads=4, hidden_dim=64, intermediate_dim=171,
    ),
    "ResNet50": lambda m: m.ResNetBackbone(
        [64], [7], [64, 128, 256, 512], [3, 4, 6, 3], [1, 2, 2, 2], "bottleneck_block",
        image_shape=(64, 64, 3),
    ),
}  # fmt: skip


def measure(name: str, folder: Path) -> dict[str, Any]:
    """The parameters of an architecture, and the share that belongs to units that are free."""
    import keras_hub

    from kprune.custom_code.flatten import flatten
    from kprune.opened import analyse, open_model

    saved, plain = folder / "saved.keras", folder / "plain.keras"
    ARCHITECTURES[name](keras_hub.models).save(saved)
    flatten(saved, plain, trust=True, force=True)
    with open_model(plain) as source:
        analysis = analyse(source)
    groups = analysis.groups
    free = ~groups.frozen()
    free[0] = False
    whole = sum(math.prod(tensor.shape) for tensor in analysis.tensors.values())
    left = sum(
        math.prod((axis.size or 1) - int(axis.dead(free).sum()) for axis in weight.axes)
        for weight in analysis.weights
    )
    axes = {axis.name for axis in analysis.map.axes.values() if free[axis.ids].any()}
    return {"parameters": whole, "share": 1 - left / whole, "axes": sorted(axes)}


@pytest.mark.skipif(importlib.util.find_spec("keras_hub") is None, reason="KerasHub is not there")
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_share_of_parameters_that_can_go(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, __file__, name, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    print(
        f"\n{name:<20} {found['parameters']:>10,} parameters, {100 * found['share']:5.1f} % can go "
        f"at most: {', '.join(found['axes'])}"
    )
    assert 0.3 < found["share"] < 1


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]))))
