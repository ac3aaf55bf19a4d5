"""Graphs that no Keras made: TensorFlow 1 sessions, frozen graphs, branches and loops."""

from __future__ import annotations

import numpy as np
import pytest

import kprune
from kprune.errors import NotARectangleError
from tests.saved_model import plain

pytestmark = pytest.mark.oracle

NAMES = {
    "first/weights": (6, 8),
    "first/biases": (8,),
    "second/weights": (8, 5),
    "third/weights": (5, 3),
}


def session_model(folder, kind):
    """A model as sessions saved it; gives its weights."""
    import tensorflow as tf

    v1 = tf.compat.v1
    rng = np.random.default_rng(0)
    values = {name: rng.normal(size=shape).astype("float32") for name, shape in NAMES.items()}
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 6], name="x")
        if kind == "frozen":
            w = {name: tf.constant(value, name=name) for name, value in values.items()}
        else:
            w = {
                name: v1.get_variable(
                    name,
                    value.shape,
                    initializer=v1.initializers.random_normal(),
                    use_resource=kind == "resource",
                )
                for name, value in values.items()
            }
            session.run(v1.global_variables_initializer())
            for name, value in values.items():
                w[name].load(value, session)
        hidden = tf.nn.relu(tf.nn.bias_add(tf.matmul(x, w["first/weights"]), w["first/biases"]))
        hidden = tf.reshape(tf.tanh(tf.matmul(hidden, w["second/weights"])), [-1, 5])
        y = tf.matmul(hidden, w["third/weights"], name="answers")
        signature = v1.saved_model.predict_signature_def({"x": x}, {"y": y})
        builder = v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature})
        builder.save()
    return values


def run_session(folder, x):
    import tensorflow as tf

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta = tf.compat.v1.saved_model.load(session, ["serve"], str(folder))
        signature = meta.signature_def["serving_default"]
        return session.run(signature.outputs["y"].name, {signature.inputs["x"].name: x})


@pytest.mark.parametrize("kind", ["reference", "resource", "frozen"])
def test_graphs_of_tensorflow_1_lose_units_too(tmp_path, kind):
    w = session_model(tmp_path / "model", kind)
    units = {"first": [1, 2, 7], "second": [0]}
    report = kprune.remove(tmp_path / "model", units, output=tmp_path / "small")
    left, kept = [0, 3, 4, 5, 6], [1, 2, 3, 4]
    x = np.random.default_rng(1).normal(size=(4, 6)).astype("float32")
    hidden = np.maximum(x @ w["first/weights"][:, left] + w["first/biases"][left], 0)
    expected = np.tanh(hidden @ w["second/weights"][left][:, kept]) @ w["third/weights"][kept]
    np.testing.assert_allclose(run_session(tmp_path / "small", x), expected, rtol=1e-4, atol=1e-5)
    assert plain.interface(tmp_path / "small") == plain.interface(tmp_path / "model")
    assert report.output.parameters == 6 * 5 + 5 + 5 * 4 + 4 * 3


@pytest.fixture(scope="module")
def control(tmp_path_factory):
    """Attention with heads by reshape, a branch and a loop, of open batch and length."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    shapes = {
        "a": (6, 16),
        "q": (16, 12),
        "k": (16, 12),
        "v": (16, 12),
        "o": (12, 16),
        "r": (16, 16),
        "z": (16, 4),
    }

    class Module(tf.Module):
        def __init__(self):
            super().__init__()
            self.w = {
                name: tf.Variable(
                    (rng.normal(size=shape) * 0.4).astype("float32"), name=f"{name}/kernel"
                )
                for name, shape in shapes.items()
            }
            self.bias = tf.Variable(rng.normal(size=16).astype("float32"), name="a/bias")

        @tf.function(
            input_signature=[
                tf.TensorSpec([None, None, 6], name="x"),
                tf.TensorSpec([], tf.int32, name="n"),
            ]
        )
        def run(self, x, n):
            h = tf.nn.relu(tf.tensordot(x, self.w["a"], 1) + self.bias)
            h = tf.cond(n > 4, lambda: h * 2.0, lambda: tf.nn.relu(h - 0.1))
            batch, time = tf.shape(h)[0], tf.shape(h)[1]

            def heads(name):
                t = tf.reshape(tf.tensordot(h, self.w[name], 1), [batch, time, 3, 4])
                return tf.transpose(t, [0, 2, 1, 3])

            scores = tf.nn.softmax(tf.matmul(heads("q"), heads("k"), transpose_b=True) / 2.0)
            y = tf.transpose(tf.matmul(scores, heads("v")), [0, 2, 1, 3])
            h += tf.tensordot(tf.reshape(y, [batch, time, 12]), self.w["o"], 1)
            _, h = tf.while_loop(
                lambda i, h: i < 3,
                lambda i, h: (i + 1, tf.tanh(tf.tensordot(h, self.w["r"], 1))),
                [0, h],
            )
            return {"y": tf.tensordot(h, self.w["z"], 1)}

    folder = tmp_path_factory.mktemp("control") / "model"
    module = Module()
    tf.saved_model.save(module, str(folder), signatures=module.run)
    return folder


@pytest.mark.parametrize(
    "units",
    [
        {"a": [1, 2, 15]},
        {"v": [0, 1, 2, 3]},
        {"q": [0, 4, 8]},
        {"q": [4, 5, 6, 7], "v": [1, 5, 9], "r": [3]},
    ],
    ids=["around a loop", "a head's values", "a dimension of each head", "all of it"],
)
def test_branches_loops_and_heads_by_reshape(control, tmp_path, units):
    plain.removal_equals_masked_original(control, tmp_path / "small", units)


def test_half_a_head_is_no_block(control, tmp_path):
    with pytest.raises(NotARectangleError):
        kprune.remove(control, {"q": [0, 5]}, output=tmp_path / "small")


def test_verify_runs_every_signature_against_the_masked_original(control, tmp_path):
    kprune.remove(control, {"a": [1, 2, 15], "v": [1, 5, 9]}, output=tmp_path / "small")
    found = kprune.verify(control, tmp_path / "small", samples=4, time=[1, 6])
    assert [timed.batch_size for timed in found.time] == [1, 6]
    assert found.passed and found.against == "masked original"
    assert [output.name for output in found.outputs] == ["y"]
    other = kprune.verify(control, control, samples=4)
    assert other.passed and other.against == "original"


def test_verify_finds_what_is_wrong(control, tmp_path):
    kprune.remove(control, {"a": [1, 2, 15]}, output=tmp_path / "small")
    kprune.zero(tmp_path / "small", {"v": [0]}, output=tmp_path / "wrong")
    note = tmp_path / "small" / "assets.extra" / "kprune.json"
    (tmp_path / "wrong" / "assets.extra" / "kprune.json").write_bytes(note.read_bytes())
    assert not kprune.verify(control, tmp_path / "wrong", samples=4).passed
