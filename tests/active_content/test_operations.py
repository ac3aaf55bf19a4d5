"""What is said of TensorFlow's operations, held against the registry of the TensorFlow that is installed."""

from __future__ import annotations

import re
from typing import Any

import pytest

from kprune.active_content.inert_operations import INERT
from kprune.active_content.operations import (
    CALLERS,
    CHECKPOINTS,
    DOES,
    TABLES_FROM_FILES,
    does,
    is_inert,
)

pytestmark = pytest.mark.oracle

REACHING = re.compile(
    r"file|path|dir(?!ection)|url|addr|host|port|server|target_name|region|librar"
)
"""How attributes and inputs are called by which an operation is told of something outside."""

HARMLESS = {
    "CTCBeamSearchDecoder", "CudnnRNNBackpropV2", "CudnnRNNBackpropV3",
}  # fmt: skip
"""Operations with such a name for something inside: paths of a beam, memory of the host."""


@pytest.fixture(scope="module")
def registered() -> dict[str, Any]:
    """OpDefs by name."""
    from tensorflow.core.framework import op_def_pb2
    from tensorflow.python.client import pywrap_tf_session

    data = pywrap_tf_session.TF_GetBuffer(pywrap_tf_session.TF_GetAllOpList())
    return {op.name: op for op in op_def_pb2.OpList.FromString(data).op}


def test_every_operation_that_is_named_is_one_of_tensorflow(registered: dict[str, Any]) -> None:
    assert not (INERT | set(DOES) | CHECKPOINTS | set(TABLES_FROM_FILES)) - set(registered)


def test_none_is_said_to_be_inert_and_to_do_something() -> None:
    assert not INERT & (set(DOES) | CHECKPOINTS)


def test_the_inert_operations_that_call_functions_are_known(registered: dict[str, Any]) -> None:
    calling = {
        name
        for name in INERT
        if any(part.type in ("func", "list(func)") for part in registered[name].attr)
    }
    assert calling == CALLERS


def test_no_inert_operation_is_told_of_a_file_or_an_address(registered: dict[str, Any]) -> None:
    told = {
        name
        for name in INERT
        for part in (*registered[name].attr, *registered[name].input_arg)
        if REACHING.search(part.name.lower())
    }
    assert told == HARMLESS


def test_no_operation_that_makes_a_dataset_or_a_queue_or_needs_a_tpu_is_inert() -> None:
    assert not [name for name in INERT if re.search(r"Dataset|Queue|Reader(V2)?$|TPU|Rpc", name)]


def test_nearly_every_operation_without_a_state_that_tensorflow_documents_is_inert(
    registered: dict[str, Any],
) -> None:
    """Else models that do no harm would be refused."""
    plain = {
        name
        for name, op in registered.items()
        if not op.is_stateful and name in _raw_operations() and "Dataset" not in name
    }
    assert len(plain & INERT) > 0.85 * len(plain)


def _raw_operations() -> set[str]:
    import tensorflow as tf

    return set(dir(tf.raw_ops))


class Node:
    """A NodeDef, as far as it is looked at."""

    def __init__(self, op: str, **attributes: bytes) -> None:
        self.op = op
        self.attr = {name: Text(value) for name, value in attributes.items()}


class Text:
    """A value of an attribute that is a text."""

    def __init__(self, value: bytes) -> None:
        self.s = value


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (Node("MatMul"), True),
        (Node("StatefulPartitionedCall"), True),
        (Node("ReadFile"), False),
        (Node("MyOwnOperation"), False),
        (Node("PrintV2"), True),
        (Node("PrintV2", output_stream=b"stderr"), True),
        (Node("PrintV2", output_stream=b"stdout"), False),
        (Node("PrintV2", output_stream=b"file:///elsewhere/x"), False),
        (Node("FixedUnigramCandidateSampler"), True),
        (Node("FixedUnigramCandidateSampler", vocab_file=b"/etc/passwd"), False),
        (Node("DecodeProtoV2"), True),
        (Node("DecodeProtoV2", descriptor_source=b"bytes://x"), True),
        (Node("DecodeProtoV2", descriptor_source=b"/etc/passwd"), False),
        (Node("XlaCallModule", module=b"ML\xefR\x01vhlo\0add_v1\0"), True),
        (Node("XlaCallModule", module=b"ML\xefR\x01vhlo\0custom_call_v1\0"), False),
        (Node("XlaCallModule", module=b'"stablehlo.custom\\5Fcall"() : () -> ()'), False),
        (Node("XlaCallModule"), False),
    ],
    ids=lambda value: (
        f"{value.op} {[v.s for v in value.attr.values()]}" if isinstance(value, Node) else ""
    ),
)
def test_some_operations_are_judged_by_their_attributes(node: Node, expected: bool) -> None:
    assert is_inert(node) is expected


def test_what_is_not_known_is_said_to_be_so() -> None:
    assert does("ReadFile") == "reads files"
    assert does("MyOwnOperation") == "is not known to stay inside the model"
