"""What is written is held against itself: cuts that are broken on purpose never get a name."""

from __future__ import annotations

import pytest

import kprune
from kprune.edit import TensorEdit
from kprune.errors import UnsoundOutputError
from kprune.saved_model.analysis import GraphAnalysis
from kprune.saved_model.files.contents import read
from kprune.saved_model.files.graph_check import complaints
from tests.saved_model import making
from tests.saved_model.test_widths_of_one import convolutions

pytestmark = pytest.mark.oracle


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    made = {"conv": convolutions("Conv2D", 2), "encoder": making.encoder()}
    made.update({name: making.MODELS[name]() for name in ("convolutions", "lstm")})
    found = {name: making.export(model, folder / name) for name, model in made.items()}
    return {**found, "module": making.two_signatures(folder / "module")}


@pytest.mark.parametrize("name", ["conv", "convolutions", "lstm", "encoder", "module"])
def test_nothing_is_said_of_models_that_tensorflow_wrote(models, name):
    assert complaints(read(models[name])) == []


def changed(monkeypatch, change):
    """Have what the analysis says of the graphs changed before it is carried out."""
    inner = GraphAnalysis.rewritten

    def rewritten(self, gone, branches=()):
        config = inner(self, gone, branches)
        change(config["changes"])
        return config

    monkeypatch.setattr(GraphAnalysis, "rewritten", rewritten)


def without(key):
    def change(changes):
        for nodes in changes["graphs"].values():
            for node in nodes.values():
                node.pop(key, None)

    return change


BROKEN = {
    "a squeeze takes the last unit's axis": ("conv", {"c": [0, 1, 2]}, without("axes")),
    "numbers of a reshape stay": ("convolutions", {"separable": [1]}, without("value")),
    "recorded shapes stay": ("conv", {"c": [0]}, without("shapes")),
    "a function takes other variables": ("conv", {"c": [0]}, lambda all: all.pop("handles")),
    "a signature promises more": ("conv", {"head": [0]}, lambda all: all.pop("results")),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_graph_that_contradicts_itself_is_not_written(models, tmp_path, monkeypatch, name):
    model, units, change = BROKEN[name]
    changed(monkeypatch, change)
    with pytest.raises(UnsoundOutputError, match="please report") as error:
        kprune.remove(models[model], units, output=tmp_path / "out")
    assert error.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []


def test_variables_that_were_not_cut_are_not_written(models, tmp_path, monkeypatch):
    monkeypatch.setattr(TensorEdit, "applied", lambda edit, array, start=0: array)
    with pytest.raises(UnsoundOutputError, match="the checkpoint holds"):
        kprune.remove(models["conv"], {"c": [0]}, output=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_what_was_wrong_before_is_no_fault_of_the_change(models, tmp_path, monkeypatch):
    """A folder that contradicts itself in a place that nothing reads can still be pruned."""
    import shutil

    from tensorflow.core.protobuf import saved_model_pb2

    folder = tmp_path / "odd"
    shutil.copytree(models["conv"], folder)
    proto = saved_model_pb2.SavedModel()
    proto.ParseFromString((folder / "saved_model.pb").read_bytes())
    for function in proto.meta_graphs[0].graph_def.library.function:
        if "traced_save" in function.signature.name:
            for arg in function.signature.input_arg:
                for held in arg.handle_data:
                    for dim in held.shape.dim[:1]:
                        dim.size += 5
    (folder / "saved_model.pb").write_bytes(proto.SerializeToString())
    assert complaints(read(folder))
    kprune.remove(folder, {"c": [0]}, output=tmp_path / "out")
    assert kprune.verify(folder, tmp_path / "out").passed
