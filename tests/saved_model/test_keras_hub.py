"""Exports of KerasHub's backbones, scaled down: what can go from them, goes."""

from __future__ import annotations

from pathlib import Path

import pytest

import kprune
from tests.saved_model import making, plain

pytestmark = [pytest.mark.oracle, pytest.mark.nightly]

SMALL = {
    "BertBackbone": {"num_heads": 4, "max_sequence_length": 12},
    "GPT2Backbone": {"num_heads": 4, "max_sequence_length": 12},
    "T5Backbone": {"num_heads": 4, "use_gated_activation": False},
    "ViTBackbone": {"num_heads": 4, "image_shape": (16, 16, 3), "patch_size": 4},
    "Llama3Backbone": {"num_query_heads": 8, "num_key_value_heads": 2},
    "GemmaBackbone": {"num_query_heads": 8, "num_key_value_heads": 1, "head_dim": 8},
}


def backbone(name: str, folder: Path) -> Path:
    hub = pytest.importorskip("keras_hub")
    options = {"num_layers": 2, "hidden_dim": 16, **SMALL[name]}
    if name == "ViTBackbone":
        options["mlp_dim"] = 32
    else:
        options |= {"vocabulary_size": 40, "intermediate_dim": 32}
    return making.export(making.randomised(getattr(hub.models, name)(**options)), folder)


@pytest.mark.parametrize("name", [name for name in SMALL if name != "T5Backbone"])
def test_a_backbone_loses_a_third_of_its_inner_units(tmp_path, name):
    folder = backbone(name, tmp_path / "model")
    units = plain.random_free_units(folder, mixed=False)
    assert len(units) >= 2
    plain.removal_equals_masked_original(folder, tmp_path / "small", units)


@pytest.mark.parametrize("name", ["BertBackbone", "GPT2Backbone", "ViTBackbone"])
def test_attention_loses_heads(tmp_path, name):
    folder = backbone(name, tmp_path / "model")
    units = plain.random_free_units(folder, mixed=False, axes=("heads",))
    assert len(units) == 2
    plain.removal_equals_masked_original(folder, tmp_path / "small", units)


def test_variables_that_share_a_name_are_layers_by_themselves(tmp_path):
    folder = backbone("T5Backbone", tmp_path / "model")
    rows = {row.name: row for row in kprune.inspect(folder).layers}
    assert rows["transformer_encoder_layer_0/kernel_4"].units == 32
    units = {
        "transformer_encoder_layer_0/kernel_4": [0, 7],  # of the block of dense layers
        "transformer_decoder_layer_1/kernel_2": [4, 5, 6, 7],  # a head's values
    }
    kprune.remove(folder, units, output=tmp_path / "small")
    found = kprune.verify(folder, tmp_path / "small")
    assert found.passed and found.exact
