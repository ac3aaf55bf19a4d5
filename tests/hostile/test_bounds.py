"""Small files and short commands that ask for much: refused in a moment, by the name of a limit."""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kprune.pruning.remove
import kprune.verbs.change
import kprune.views.inspect
from tests.formats.making import write_keras
from tests.measuring import Measured, measured, measured_call
from tests.small_models import Network, Tensor, layer, sequential, write

MEGABYTES, SECONDS = 300, 5
N = 10**8
"""Of numbers, more than fits; of bytes, little."""


def within_bounds(ran: Measured, limit: str | None) -> None:
    """A command was carried out, or refused by a limit, and took little either way."""
    if limit is None:
        assert ran.code == 0, ran.err
    else:
        assert (ran.code, f"limit {limit}," in ran.err) == (4, True), ran.err
        assert f"raise the limit with --limit {limit}=N" in ran.err
    assert ran.megabytes < MEGABYTES and ran.seconds < SECONDS


def chain(*layers: dict[str, Any], shape: tuple[int | None, ...] = (4,)) -> dict[str, Any]:
    config: dict[str, Any] = sequential(*layers, shape=shape)
    return config


def operation(kind: str, **config: Any) -> dict[str, Any]:
    """A model of one operation on a vector of four."""
    net = Network()
    spec = layer(kind, "op", **config) | {"module": "keras.src.ops.numpy"}
    return net.functional(net.call(spec, net.input("in", 4), shape=(None, None)))


def doubling(times: int) -> dict[str, Any]:
    """Concatenations of a tensor with itself, one behind the other."""
    net = Network()
    x = net.input("in", 4)
    for number in range(times):
        x = net("Concatenate", f"c{number}", [x, x], shape=(None, None))
    return net.functional(x)


def calling(levels: int, times: int) -> dict[str, Any]:
    """Models in each other, each of which calls the one inside it several times."""
    net = Network("m0")
    model = net.functional(net("Dropout", "drop", net.input("in", 4), rate=0.5))
    for level in range(levels):
        net = Network(f"m{level + 1}")
        x: Tensor = net.input("in", 4)
        for _ in range(times):
            x = net.call(model, x)
        model = net.functional(x)
    return model


def nested(levels: int) -> dict[str, Any]:
    model = chain(layer("Dropout", "drop", rate=0.5))
    for level in range(levels):
        model = sequential(model, shape=[4], name=f"m{level}")
    return model


def deep(levels: int) -> bytes:
    """A config with lists in each other in one of its entries."""
    text = json.dumps(chain(layer("Dropout", "drop", rate=0.5, seed="@")))
    return text.replace('"@"', "[" * levels + "]" * levels).encode()


CONFIGS: dict[str, tuple[Any, str | None]] = {
    "a layer of 100,000,000 units": (chain(layer("Dense", "a", units=N)), "units"),
    "a layer of 10^300 units": (chain(layer("Dense", "a", units=10**300)), "units"),
    "an input of 100,000,000 features": (chain(shape=(N,)), "units"),
    "a depthwise kernel that multiplies": (
        chain(layer("DepthwiseConv2D", "a", depth_multiplier=N), shape=(8, 8, 4)), "units",
    ),
    "a recurrent layer": (chain(layer("LSTM", "a", units=N), shape=(4, 4)), "units"),
    "an embedding": (chain(layer("Embedding", "a", input_dim=N, output_dim=N)), "units"),
    "a flattened image": (chain(layer("Flatten", "a"), shape=(N, N, 4)), "positions"),
    "a vector that is repeated": (
        chain(layer("RepeatVector", "a", n=N), layer("Flatten", "b")), "positions",
    ),
    "a reshape": (chain(layer("Reshape", "a", target_shape=[-1, N])), "positions"),
    "a tensor of 100,000 axes": (chain(layer("Reshape", "a", target_shape=[1] * 100_000)), None),
    "strides and windows": (
        chain(
            layer("MaxPooling2D", "a", pool_size=[N, N], strides=[N, N], padding="same",
                  data_format="channels_last"),
            layer("UpSampling2D", "b", size=[N, N], data_format="channels_last"),
            layer("ZeroPadding2D", "c", padding=[[N, N], [N, N]], data_format="channels_last"),
            shape=(8, 8, 4),
        ), None,
    ),
    "axes without end": (chain(layer("Softmax", "a", axis=list(range(100_000)))), None),
    "a repeat": (operation("Repeat", repeats=N, axis=1), "positions"),
    "a tile": (operation("Tile", repeats=[1, N]), "positions"),
    "a pad": (operation("Pad", pad_width=[[0, 0], [N, N]]), "units"),
    "a split in 100,000,000 parts": (operation("Split", indices_or_sections=N, axis=1), "positions"),
    "tokens out of vocabulary": (
        chain(
            layer("IntegerLookup", "a", vocabulary=[1], num_oov_indices=N, mask_token=None),
            layer("Embedding", "b", input_dim=10, output_dim=2),
        ), "positions",
    ),
    "40 concatenations that double": (doubling(40), "positions"),
    "ten calls of ten calls of ten calls": (calling(9, 10), "calls"),
    "60 models in each other": (nested(60), None),
    "100 models in each other": (nested(100), "json-levels"),
    "lists nested 290 deep": (deep(290), None),
    "lists nested 900 deep": (deep(900), "json-levels"),
    "brackets without end": (b"[" * 900_000, "json-levels"),
    "900,000 bytes of empty lists": (deep(1).replace(b"[]", b"[" + b"[]," * 290_000 + b"[]]"), None),
    "a number of 900,000 digits": (deep(1).replace(b"[]", b"9" * 900_000), "damaged"),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_allocates_nothing_from_its_numbers(name: str, tmp_path: Path) -> None:
    config, limit = CONFIGS[name]
    model = write_keras(tmp_path / "m.keras", {}, config=config)
    if name == "tokens out of vocabulary":
        model = write_keras(
            model, {"layers/embedding/vars/0": np.zeros((10, 2), np.float32)}, config=config
        )
    ran = measured("inspect", model)
    assert ran.code == 0 or str(model) in ran.err
    if limit == "damaged":
        assert ran.code == 4 and "is damaged" in ran.err
        limit = None
        ran = Measured(0, "", ran.seconds, ran.megabytes)
    within_bounds(ran, limit)


def test_a_sparse_config_in_a_folder_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "metadata.json").write_text("{}")
    write_keras(tmp_path / "m.keras", {})
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        archive.extract("model.weights.h5", tmp_path / "m")
    with open(tmp_path / "m" / "config.json", "wb") as file:
        file.truncate(3 << 30)
    within_bounds(measured("inspect", tmp_path / "m"), "json-bytes")


def test_a_limit_that_is_raised_on_the_command_line_lets_more_through(tmp_path: Path) -> None:
    model = write_keras(tmp_path / "m.keras", {}, config=chain(shape=(1_500_000,)))
    within_bounds(measured("inspect", model), "units")
    within_bounds(measured("inspect", model, "--limit", "units=2M"), None)
    within_bounds(
        measured("inspect", model, "--limit", "units=2M", "--limit", "json-items=5"), "json-items"
    )


# -- what is read beside a model --------------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path) -> Path:
    config = chain(layer("Dense", "a", units=16), layer("Dense", "b", units=3))
    return write(tmp_path / "m.keras", config)


def removed(model: Path, *arguments: object) -> Measured:
    return measured("remove", model, *arguments, "-o", model.with_name("out.keras"))


ENDLESS: dict[str, tuple[Callable[[Path], tuple[object, ...]], str]] = {
    "units from /dev/zero": (lambda m: ("remove", m, "a:@/dev/zero", "--dry-run"), "list-bytes"),
    "a plan from /dev/urandom": (lambda m: ("apply", m, "/dev/urandom", "--dry-run"), "plan-bytes"),
    "tokens from /dev/zero": (
        lambda m: ("remove", m, "--classes", "x", "--class-names", "/dev/zero", "--dry-run"), "list-bytes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDLESS)
def test_what_has_no_end_is_refused(name: str, model: Path) -> None:
    command, limit = ENDLESS[name]
    within_bounds(measured(*command(model)), limit)


def test_curves_that_have_no_end_are_refused() -> None:
    from kprune.select.plans.curves import read_curves

    within_bounds(measured_call(lambda: read_curves("/dev/zero")), "json-bytes")


def test_a_device_is_no_data(model: Path) -> None:
    ran = removed(model, "--criterion", "activation-mean", "--ratio", "0.1", "--data", "/dev/zero")
    assert (ran.code, "it is not a file" in ran.err) == (4, True)
    assert ran.seconds < 1  # before anything that runs a model is imported


@pytest.mark.parametrize("head", [b"", b"PK\x03\x04"], ids=["nothing known", "a zip archive"])
def test_a_pipe_without_end_does_not_fill_the_disk(head: bytes) -> None:
    """Of what begins like no model only the beginning is copied."""
    read, write = os.pipe()
    feeder = os.fork()
    if feeder == 0:
        os.close(read)
        try:
            os.write(write, head)
            while True:
                os.write(write, bytes(1 << 16))
        finally:
            os._exit(0)
    os.close(write)
    ran = measured("inspect", "-", "--limit", "pipe-bytes=5M", stdin=read)
    os.close(read)
    os.waitpid(feeder, 0)
    assert ran.code == 4 and ran.seconds < SECONDS
    assert ("limit pipe-bytes, 5,000,000" in ran.err) == bool(head)


def test_a_list_of_two_million_units_is_refused_in_a_moment(model: Path, tmp_path: Path) -> None:
    (tmp_path / "many.txt").write_text(",".join(str(unit % 10) for unit in range(2_000_000)))
    within_bounds(removed(model, f"a:@{tmp_path / 'many.txt'}"), "list-items")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--layer", "a", "--units", "0-1000000000000"),
        ("a:0-99999999999999999999999999",),
        ("--where", "2**10**9 > 1"),
        ("--where", "(10**9)**(10**9) > mean + 1e300**2"),
        ("--where", "w[10**12] > 1"),
        ("--where", "(" * 900 + "mean" + ")" * 900 + " < 0"),
        ("--where", "-" * 1900 + "mean < 0"),
    ],
    ids=str,
)
def test_an_expression_or_a_range_costs_nothing(arguments: tuple[str, ...], model: Path) -> None:
    ran = removed(model, *arguments)
    assert ran.code == 2, ran.err
    assert ran.megabytes < 100 and ran.seconds < SECONDS


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
            f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefghij", "bcdefghijk", strict=True)
        ),
        "[" * 100_000,
        "version: " + "9" * 1_000_000,
        "version: 1\nsteps: [{backend: remove, layers: {a: [" + "1," * 300_000 + "1]}}]\n",
        "version: 1\nsteps:\n" + "  - {backend: zero, layers: {a: [0]}}\n" * 1_001,
    ],
    ids=["aliases of aliases", "brackets", "digits", "values", "steps"],
)  # fmt: skip
def test_a_plan_costs_little(text: str, model: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(text)
    ran = measured("apply", model, tmp_path / "plan.yaml", "-o", tmp_path / "out.keras")
    assert ran.code in (2, 4) and "plan.yaml" in ran.err
    assert ran.megabytes < MEGABYTES and ran.seconds < SECONDS


def npy(shape: str, kind: str = "<f4") -> bytes:
    """An array's header, and a few of its bytes."""
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"
    text = text.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + bytes(64)


def packed(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


DATA = {
    "an array of 10^12 numbers": packed({"x.npy": npy("(1000000000000, 4)")}),
    "an array of 10^9 numbers": packed({"x.npy": npy("(250000000, 4)")}),
    "a pickle": packed({"x.npy": npy("(1,)", "|O")}),
    "pickled bytes": b"\x80\x04\x95.",
    "an array alone": npy("(10000000000, 4)"),
    "a member that is no array": packed({"x.npy": b"hello"}),
    "an archive of nothing": packed({}),
    "half an archive": packed({"x.npy": npy("(1, 4)")})[:60],
}


@pytest.mark.parametrize("name", DATA)
def test_damaged_data_cost_nothing(name: str, model: Path, tmp_path: Path) -> None:
    from kprune.running.arrays import read_npz

    (tmp_path / "data.npz").write_bytes(DATA[name])
    ran = measured_call(lambda: read_npz(tmp_path / "data.npz"))
    assert ran.code == 4 and "data.npz" in ran.err, ran.err
    assert ran.megabytes < 100 and ran.seconds < SECONDS


def test_an_array_that_is_packed_small_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    from kprune.running.arrays import read_npz

    (tmp_path / "data.npz").write_bytes(packed({"x.npy": bytes(20_000_000)}))
    with kprune.limit(unpacked_bytes=10_000_000), pytest.raises(kprune.LimitError) as refused:
        read_npz(tmp_path / "data.npz")
    assert refused.value.why == "'x.npy' has 20,000,000 bytes; limit unpacked-bytes, 10,000,000"


@pytest.mark.parametrize("megabytes", [60, 100, 200])
def test_too_little_memory_is_said_so(megabytes: int, model: Path) -> None:
    import subprocess
    import sys

    ran = subprocess.run(
        ["bash", "-c", f'ulimit -v {megabytes << 10}; exec "$@"', "bash",
         sys.executable, "-m", "kprune", "inspect", model],
        capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode in (0, 4), ran.stderr
    assert ran.returncode == 0 or "there is not enough memory" in ran.stderr
