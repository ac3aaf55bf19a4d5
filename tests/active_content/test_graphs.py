"""Where in the graphs of a SavedModel something stands that does more than compute."""

from __future__ import annotations

from typing import Any

import pytest

from kprune.active_content import Kind, active_in_graphs

pytestmark = pytest.mark.oracle


@pytest.fixture
def proto() -> Any:
    """A SavedModel with one empty graph."""
    from tensorflow.core.protobuf import saved_model_pb2

    found = saved_model_pb2.SavedModel()
    found.meta_graphs.add()
    return found


def add(graph: Any, name: str, op: str, *inputs: str, calls: str = "") -> Any:
    nodes = graph.node_def if hasattr(graph, "node_def") else graph.node
    node = nodes.add(name=name, op=op, input=inputs)
    if calls:
        node.attr["f"].func.name = calls
    return node


def function(meta: Any, name: str, *arguments: str) -> Any:
    found = meta.graph_def.library.function.add()
    found.signature.name = name
    for argument in arguments:
        found.signature.input_arg.add(name=argument)
    return found


def found_in(proto: Any) -> list[str]:
    return [f"{item.place}: {item.what.partition(',')[0]}" for item in active_in_graphs(proto)]


def saver(meta: Any) -> None:
    """What every SavedModel has: nodes that save and restore, each by a function."""
    add(meta.graph_def, "filename", "Placeholder")
    for name, op in (("save", "SaveV2"), ("restore", "RestoreV2")):
        add(meta.graph_def, name, "StatefulPartitionedCall", "filename", calls=f"__{name}")
        add(function(meta, f"__{name}", "prefix"), op, op, "prefix")
    meta.saver_def.filename_tensor_name = "filename:0"
    meta.saver_def.save_tensor_name = "save:0"
    meta.saver_def.restore_op_name = "restore"


def test_what_saves_and_restores_the_variables_is_no_matter(proto: Any) -> None:
    saver(proto.meta_graphs[0])
    assert found_in(proto) == []


def test_the_saver_may_do_nothing_else(proto: Any) -> None:
    meta = proto.meta_graphs[0]
    saver(meta)
    add(meta.graph_def.library.function[1], "x", "WriteFile", "a", "b")
    assert found_in(proto) == ["__restore: WriteFile"]


def test_the_saver_restores_from_nowhere_else(proto: Any) -> None:
    meta = proto.meta_graphs[0]
    saver(meta)
    restore = meta.graph_def.library.function[1]
    add(restore, "elsewhere", "Const")
    add(restore, "more", "RestoreV2", "elsewhere:output:0")
    assert found_in(proto) == ["__restore: RestoreV2"]


@pytest.mark.parametrize("how", ["a node", "a signature", "an object", "an initializer", "no one"])
def test_what_saves_is_a_matter_if_others_call_it(proto: Any, how: str) -> None:
    meta = proto.meta_graphs[0]
    saver(meta)
    if how == "a node":
        add(meta.graph_def, "other", "StatefulPartitionedCall", "filename", calls="__save")
    elif how == "a signature":
        meta.signature_def["serve"].outputs["y"].name = "save:0"
    elif how == "an object":
        meta.object_graph_def.concrete_functions["__save"].SetInParent()
    elif how == "an initializer":
        add(meta.graph_def, "init", "NoOp", "^save")
        meta.collection_def["saved_model_main_op"].node_list.value.append("init")
    else:
        meta.saver_def.save_tensor_name = ""
    assert found_in(proto) == ["__save: SaveV2"]


def test_every_graph_counts_and_a_function_that_no_one_calls(proto: Any) -> None:
    first, second = proto.meta_graphs[0], proto.meta_graphs.add()
    add(first.graph_def, "a", "ReadFile", "b")
    add(function(second, "aside"), "a", "WriteFile", "b", "c")
    add(second.graph_def, "a", "PyFunc")
    assert found_in(proto) == [
        "the main graph: PyFunc",
        "the main graph: ReadFile",
        "aside: WriteFile",
    ]


def test_a_call_by_the_name_of_a_function_is_no_operation_of_its_own(proto: Any) -> None:
    meta = proto.meta_graphs[0]
    add(function(meta, "mine"), "a", "ReadFile", "b")
    add(meta.graph_def, "call", "mine")
    assert found_in(proto) == ["mine: ReadFile"]


def test_of_two_nodes_of_one_name_both_count(proto: Any) -> None:
    meta = proto.meta_graphs[0]
    add(meta.graph_def, "a", "WriteFile", "b", "c")
    add(meta.graph_def, "a", "NoOp")
    assert found_in(proto) == ["the main graph: WriteFile"]


def test_an_operation_is_told_once_with_a_graph_that_holds_it(proto: Any) -> None:
    meta = proto.meta_graphs[0]
    for name in ("one", "two", "three"):
        add(function(meta, name), "a", "ReadFile", "b")
    (item,) = active_in_graphs(proto)
    assert str(item) == (
        "'one' runs the operation ReadFile, which reads files, also in 2 other graphs"
    )


# -- tables that are filled from files ---------------------------------------------------------------


def table(proto: Any, *, asset: str = "words.txt") -> Any:
    """A function that fills a table from its argument, and an asset."""
    meta = proto.meta_graphs[0]
    fill = function(meta, "fill", "path", "table")
    add(fill, "same", "Identity", "path")
    add(fill, "fill", "InitializeTableFromTextFileV2", "table", "same:output:0")
    add(meta.graph_def, "asset", "Placeholder")
    meta.asset_file_def.add(filename=asset).tensor_info.name = "asset:0"
    return meta


def test_a_table_may_be_filled_from_an_asset(proto: Any) -> None:
    meta = table(proto)
    add(meta.graph_def, "call", "StatefulPartitionedCall", "asset", "table", calls="fill")
    assert found_in(proto) == []


def test_a_table_may_be_filled_from_an_asset_that_went_through_a_variable(proto: Any) -> None:
    meta = table(proto)
    add(meta.graph_def, "v", "VarHandleOp")
    add(meta.graph_def, "assign", "AssignVariableOp", "v", "asset")
    add(meta.graph_def, "read", "ReadVariableOp", "v")
    add(meta.graph_def, "call", "StatefulPartitionedCall", "read", "table", calls="fill")
    assert found_in(proto) == []
    again = add(meta.graph_def, "again", "AssignVariableOp", "v", "other")
    assert found_in(proto) == ["fill: InitializeTableFromTextFileV2"]
    meta.graph_def.node.remove(again)
    add(meta.graph_def, "alias", "VarHandleOp").attr["shared_name"].s = b"v"
    assert found_in(proto) == ["fill: InitializeTableFromTextFileV2"]


def test_a_table_may_be_filled_from_an_asset_that_its_function_holds(proto: Any) -> None:
    meta = table(proto)
    objects = meta.object_graph_def
    objects.nodes.add().asset.SetInParent()
    objects.nodes.add().resource.SetInParent()
    objects.concrete_functions["fill"].bound_inputs.extend([0, 1])
    assert found_in(proto) == []
    objects.concrete_functions["fill"].bound_inputs[0] = 1
    assert found_in(proto) == ["fill: InitializeTableFromTextFileV2"]


@pytest.mark.parametrize("op", ["Const", "Placeholder", "StringJoin"])
def test_a_table_is_filled_from_nothing_else(proto: Any, op: str) -> None:
    meta = table(proto)
    add(meta.graph_def, "name", op)
    for source in ("asset", "name"):
        add(meta.graph_def, source + "_call", "StatefulPartitionedCall", source, "t", calls="fill")
    assert found_in(proto) == ["fill: InitializeTableFromTextFileV2"]


def test_what_a_loop_or_an_unknown_caller_hands_over_is_not_known_to_be_an_asset(
    proto: Any,
) -> None:
    meta = table(proto)
    assert found_in(proto) == ["fill: InitializeTableFromTextFileV2"]
    add(meta.graph_def, "call", "StatefulPartitionedCall", "asset", "table", calls="fill")
    add(meta.graph_def, "loop", "While", "asset", "table", calls="fill")
    assert found_in(proto) == ["fill: InitializeTableFromTextFileV2"]


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../words.txt", "a/../../words.txt", "gs://bucket/words", ".."]
)
def test_an_asset_outside_of_its_folder_is_told(proto: Any, name: str) -> None:
    table(proto, asset=name)
    items = active_in_graphs(proto)
    assert (Kind.FILE, "assets", name) in [(item.kind, item.place, item.what) for item in items]


@pytest.mark.parametrize("name", ["words.txt", "a/words.txt", "a..b", "..words"])
def test_an_asset_in_its_folder_is_not_told(proto: Any, name: str) -> None:
    table(proto, asset=name)
    assert Kind.FILE not in [item.kind for item in active_in_graphs(proto)]
