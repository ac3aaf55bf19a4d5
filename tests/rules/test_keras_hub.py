"""KerasHub's backbones, tiny and random: flattened, pruned, held against the zeroed original."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from kprune.custom_code.flatten import flatten
from tests.oracle.law import assert_equal, outputs, randomize
from tests.oracle.zeroed import remove_and_zero

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    models = pytest.importorskip("keras_hub").models

pytestmark = pytest.mark.oracle

STEPS = 6
SMALL = {"vocabulary_size": 20, "num_layers": 2, "hidden_dim": 16, "intermediate_dim": 24}
SHARED = {**SMALL, "num_query_heads": 4, "num_key_value_heads": 2}

BACKBONES: dict[str, Callable[[], Any]] = {
    "bert": lambda: models.BertBackbone(**SMALL, num_heads=4, max_sequence_length=STEPS),
    "roberta": lambda: models.RobertaBackbone(**SMALL, num_heads=4, max_sequence_length=STEPS),
    "gpt2": lambda: models.GPT2Backbone(**SMALL, num_heads=4, max_sequence_length=STEPS),
    "llama": lambda: models.LlamaBackbone(**SHARED),
    "llama3": lambda: models.Llama3Backbone(
        **SHARED,
        rope_frequency_adjustment_factor=2.0,
        rope_low_freq_factor=1.0,
        rope_high_freq_factor=4.0,
        rope_pretraining_sequence_length=8,
    ),
    "mistral": lambda: models.MistralBackbone(**SHARED),
    "phi3": lambda: models.Phi3Backbone(**SHARED),
    "qwen2": lambda: models.QwenBackbone(**SHARED),
    "qwen3": lambda: models.Qwen3Backbone(**SHARED, head_dim=6),
    "gemma": lambda: models.GemmaBackbone(**SHARED, head_dim=6),
    "gemma2": lambda: models.GemmaBackbone(
        **SHARED, head_dim=6, use_post_ffw_norm=True, use_post_attention_norm=True
    ),
    "gemma3": lambda: models.Gemma3Backbone(**SHARED, head_dim=6, image_size=16),
    "t5": lambda: models.T5Backbone(
        **{**SMALL, "num_layers": 1}, num_heads=4, key_value_dim=5
    ),  # one layer: two that share the heads take 13 s; the next, at night, has two
    "t5_ungated": lambda: models.T5Backbone(**SMALL, num_heads=4, use_gated_activation=False),
    "vit": lambda: models.ViTBackbone(
        image_shape=(8, 8, 3), patch_size=4, num_layers=2, num_heads=4, hidden_dim=16, mlp_dim=24
    ),
    "resnet": lambda: models.ResNetBackbone(
        [64], [7], [64, 64], [2, 1], [1, 2], "basic_block", image_shape=(32, 32, 3)
    ),
    "resnet_bottleneck": lambda: models.ResNetBackbone(
        [64], [7], [64], [2], [1], "bottleneck_block", image_shape=(32, 32, 3)
    ),
}
# The layers of the others have the same rules, called with another option.
QUICK = set(BACKBONES) - {"roberta", "llama3", "gemma", "gemma3", "t5_ungated", "resnet"}
WITH_HEADS = {"mistral", "qwen3", "gemma", "gemma2", "gemma3", "t5", "t5_ungated"}


def inputs_of(model: Any, seed: int = 0) -> Any:
    """Tokens where a model takes tokens, masks in which a few steps are missing, images."""
    rng = np.random.default_rng(seed)

    def draw(name: str, tensor: Any) -> np.ndarray:
        shape = (2, *(STEPS if size is None else size for size in tensor.shape[1:]))
        if "mask" in name:
            return (np.arange(shape[1]) < np.array([[shape[1]], [shape[1] - 2]])).astype("int32")
        if "segment" in name:
            return rng.integers(0, 2, shape).astype("int32")
        if "int" in str(tensor.dtype):
            return rng.integers(0, SMALL["vocabulary_size"], shape).astype("int32")
        return rng.normal(size=shape).astype("float32")

    struct = model._inputs_struct
    if isinstance(struct, dict):
        return {name: draw(name, tensor) for name, tensor in struct.items()}
    return draw("", struct)


@pytest.mark.parametrize(
    "name",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.nightly)
        for name in BACKBONES
    ],
)
def test_a_flattened_backbone_loses_a_third_of_its_free_units_and_nothing_else(
    name: str, tmp_path: Path
) -> None:
    whole, flat = tmp_path / "backbone.keras", tmp_path / "flat.keras"
    backbone = randomize(BACKBONES[name]())
    backbone.save(whole)

    report = flatten(whole, flat, trust=True)
    assert report.flattened == [type(backbone).__name__]
    assert report.parameters == backbone.count_params()
    inputs = inputs_of(backbone)
    for one, other in zip(
        outputs(keras.models.load_model(flat), inputs), outputs(backbone, inputs), strict=True
    ):
        assert_equal(one, other, 1e-6)

    outcome, small, zeroed = remove_and_zero(str(flat), 0.3, 0, tmp_path)
    assert not outcome.opaque
    assert outcome.report.exact
    kinds = {address.rpartition(".")[2] for address in outcome.chosen}
    assert ("heads" in kinds) == (name in WITH_HEADS)
    for one, other in zip(outputs(small, inputs), outputs(zeroed, inputs), strict=True):
        assert_equal(one, other)
    # The zeroed one is another network than the original, or the comparison would prove nothing.
    changed = zip(outputs(zeroed, inputs), outputs(backbone, inputs), strict=True)
    assert any(np.abs(one - other).max() > 1e-3 for one, other in changed)


def test_every_weight_of_a_backbone_is_declared_by_its_rules(tmp_path: Path) -> None:
    """What a rule leaves out would be carried over whole, and counted by nobody."""
    from tests.oracle.zeroed import analysis_of

    for name in ("bert", "gpt2", "gemma2", "t5", "vit", "qwen3"):
        whole, flat = tmp_path / f"{name}.keras", tmp_path / f"{name}.flat.keras"
        BACKBONES[name]().save(whole)
        flatten(whole, flat, trust=True)
        analysis = analysis_of(flat)
        assert set(analysis.tensors) == {weight.path for weight in analysis.weights}


def test_a_layer_with_the_name_of_a_keras_hub_layer_from_elsewhere_has_no_rule() -> None:
    from kprune.graph import Layer
    from kprune.rules import builtin

    def layer(module: str, registered: str) -> Layer:
        spec = {"class_name": "TransformerEncoder", "config": {"name": "block"}}
        return Layer("block", "block", "TransformerEncoder", module, registered, spec)

    assert builtin().find(layer("keras_hub.src.layers", "keras_hub>TransformerEncoder")) is not None
    assert builtin().find(layer("mine", "keras_hub>TransformerEncoder")) is None
    assert builtin().find(layer("mine", "TransformerEncoder")) is None


def test_a_release_that_builds_a_layer_otherwise_loses_its_rule_and_nothing_else(
    tmp_path: Path,
) -> None:
    """A matrix of another shape than declared: the layer is frozen, the file is not refused."""
    from kprune.analysis.analysis import Analysis
    from kprune.opened import open_model
    from tests.oracle.zeroed import analysis_of

    class Other:
        shape = (16, 25)

    whole, flat = tmp_path / "bert.keras", tmp_path / "flat.keras"
    BACKBONES["bert"]().save(whole)
    flatten(whole, flat, trust=True)
    assert "transformer_layer_0.intermediate_dim" in analysis_of(flat).map.axes
    with open_model(flat) as source:
        path = "layers/transformer_encoder/_feedforward_intermediate_dense/vars/0"
        tensors = {**source.tensors, path: Other()}
        analysis = Analysis.of(source.config, source.metadata, tensors)
    assert "transformer_layer_0.intermediate_dim" not in analysis.map.axes
    assert any("another release of the package" in freeze.why for freeze in analysis.map.freezes)
