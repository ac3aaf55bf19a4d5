"""Labels of tensors, and the laws of combining them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kprune.labels.combine import broadcast_shape, combine
from kprune.labels.groups import connected
from kprune.labels.labels import Axis, Labels, fold, merged

Shape = tuple[int | None, ...]


class Derivations:
    """Stands for `LabelMap.derive`: fresh labels, the same ones for the same members."""

    def __init__(self, first: int) -> None:
        self.next, self.known = first, {}

    def __call__(self, members: np.ndarray) -> np.ndarray:
        key = members.tobytes()
        if key not in self.known:
            self.known[key] = np.arange(self.next, self.next + len(members))
            self.next += len(members)
        return self.known[key]


def along(shape: Shape, axis: int, first: int) -> Labels:
    """A tensor with one unit per position of one axis, labelled from `first`."""
    size = shape[axis]
    assert size is not None
    return Labels(shape).with_axis(axis, np.arange(first, first + size), shape)


def tied_and_stuck(*operands: Labels) -> tuple[np.ndarray, set[int], Labels]:
    """Each label's group (of 100), the stuck labels, and the result's labels."""
    combined = combine(operands, Derivations(80))
    nothing = np.zeros(0, np.int64)
    a = np.concatenate([nothing, *(tie[0].ravel() for tie in combined.ties)])
    b = np.concatenate([nothing, *(tie[1].ravel() for tie in combined.ties)])
    stuck = {int(label) for ids in combined.stuck for label in ids.ravel()} - {0}
    return connected(100, a, b), stuck, combined.labels


def test_units_that_meet_position_by_position_are_tied() -> None:
    groups, stuck, labels = tied_and_stuck(along((None, 3), 1, 1), along((None, 3), 1, 11))
    assert groups[11:14].tolist() == [1, 2, 3] and not stuck
    assert labels.last.ids.tolist() == [1, 2, 3]


def test_a_tensor_of_size_1_is_broadcast_and_takes_nothing_with_it() -> None:
    gate = along((None, 1, 1, 4), 3, 11)
    groups, stuck, labels = tied_and_stuck(along((None, 5, 5, 4), 3, 1), gate)
    assert groups[11:15].tolist() == [1, 2, 3, 4] and not stuck
    assert labels.shape == (None, 5, 5, 4)


def test_a_tensor_without_units_holds_those_it_meets_at_full_size() -> None:
    units, plain = along((None, 3), 1, 1), Labels((None, 3))
    assert tied_and_stuck(units, plain)[1] == {1, 2, 3}
    assert tied_and_stuck(plain, units)[1] == {1, 2, 3}


def test_a_tensor_without_units_and_of_size_1_holds_nothing() -> None:
    assert tied_and_stuck(along((None, 3), 1, 1), Labels((None, 1)))[1] == set()


def test_one_unit_spread_over_many_cannot_go() -> None:
    assert tied_and_stuck(along((None, 4), 1, 1), along((None, 1), 1, 11))[1] == {11}


def test_a_position_without_a_unit_holds_the_one_that_it_meets() -> None:
    holed = Labels((None, 3)).with_last(np.array([11, 0, 13]))
    groups, stuck, labels = tied_and_stuck(along((None, 3), 1, 1), holed)
    assert groups[[11, 13]].tolist() == [1, 3] and stuck == {2}
    assert labels.last.ids.tolist() == [1, 2, 3]


def test_units_along_different_axes_stand_side_by_side_untied() -> None:
    # A position is gone when the unit of its row or that of its column is: both must be of full
    # size only where the other is spread.
    rows, columns = along((None, 3, 1), 1, 1), along((None, 1, 4), 2, 11)
    groups, stuck, labels = tied_and_stuck(rows, columns)
    assert groups[:15].tolist() == list(range(15)) and not stuck
    assert labels.shape == (None, 3, 4)
    assert labels.axis(1).ids.tolist() == [1, 2, 3] and labels.axis(2).ids.tolist() == [
        11,
        12,
        13,
        14,
    ]


def test_a_head_goes_with_all_its_dimensions() -> None:
    values = Labels((None, 2, 3), (np.arange(1, 7).reshape(1, 2, 3),))
    derive = Derivations(80)
    combined = combine([values, along((None, 2, 1), 1, 11)], derive)
    (members,) = [np.frombuffer(key, np.int64).reshape(2, 3) for key in derive.known]
    assert members.tolist() == [[1, 2, 3], [4, 5, 6]]
    (tie,) = combined.ties
    assert tie[0].tolist() == [80, 81] and tie[1].tolist() == [11, 12]


def test_a_result_is_silent_only_if_all_operands_are() -> None:
    one, other = along((None, 2), 1, 1), along((None, 2), 1, 11).with_keeps_zero(False)
    assert combine([one, one], Derivations(80)).labels.keeps_zero
    assert not combine([one, other], Derivations(80)).labels.keeps_zero


@st.composite
def operands(draw: st.DrawFn) -> list[Labels]:
    """Two or three tensors that broadcast together, each with units along at most one axis."""
    rank = draw(st.integers(2, 4))
    full = [None, *draw(st.lists(st.integers(2, 4), min_size=rank - 1, max_size=rank - 1))]
    found = []
    for number in range(draw(st.integers(2, 3))):
        shape = tuple(size if draw(st.booleans()) or size is None else 1 for size in full)
        axis = draw(st.integers(0, rank - 1))
        if axis == 0:
            found.append(Labels(shape))
            continue
        size = shape[axis] or 1
        ids = np.arange(1 + 20 * number, 1 + 20 * number + size)
        holes = draw(st.lists(st.booleans(), min_size=size, max_size=size))
        found.append(Labels(shape).with_axis(axis, np.where(holes, ids, 0), shape))
    return found


@settings(deadline=None, max_examples=200)
@given(operands(), st.randoms(use_true_random=False))
def test_the_order_of_operands_changes_neither_ties_nor_what_is_stuck(
    tensors: list[Labels], random: object
) -> None:
    turned = list(tensors)
    random.shuffle(turned)  # type: ignore[attr-defined]
    groups, stuck, labels = tied_and_stuck(*tensors)
    again, stuck_again, turned_labels = tied_and_stuck(*turned)
    # Which of tied labels stands for the others may differ; the groups may not.
    held, held_again = (
        {int(g[label]) for label in s} for g, s in ((groups, stuck), (again, stuck_again))
    )
    assert labels.shape == turned_labels.shape
    if not held and not held_again:
        np.testing.assert_array_equal(groups, again)
        for one, other in zip(
            sorted(groups[f].tobytes() for f in labels.factors),
            sorted(again[f].tobytes() for f in turned_labels.factors),
            strict=True,
        ):
            assert one == other
    assert bool(held) == bool(held_again)


@settings(deadline=None, max_examples=200)
@given(operands())
def test_whatever_goes_leaves_every_operand_the_same_positions(tensors: list[Labels]) -> None:
    """What is gone of the result is gone of each operand that is not broadcast there."""
    groups, stuck, labels = tied_and_stuck(*tensors)
    held = {int(groups[label]) for label in stuck}
    shape = labels.shape
    for group in {int(groups[label]) for label in labels.all_ids()} - held - {0}:
        gone = groups == group
        for axis in range(1, len(shape)):
            dead = labels.axis(axis).dead(gone)
            for tensor in tensors:
                if tensor.shape[axis] != 1 and shape[axis] != 1 and dead.any():
                    np.testing.assert_array_equal(tensor.axis(axis).dead(gone), dead)


@given(
    st.lists(st.lists(st.sampled_from([1, 1, 3]), min_size=1, max_size=4), min_size=1, max_size=3)
)
def test_shapes_broadcast_as_numpy_does(shapes: list[list[int]]) -> None:
    assert broadcast_shape([tuple(shape) for shape in shapes]) == np.broadcast_shapes(
        *map(tuple, shapes)
    )


def test_unknown_sizes_broadcast_to_what_is_known_and_contradictions_do_not() -> None:
    assert broadcast_shape([(None, None, 3), (None, 1, 1)]) == (None, None, 3)
    assert broadcast_shape([(None, None), (None, 7)]) == (None, 7)
    with pytest.raises(ValueError, match=r"sizes \[3, 4\] do not broadcast"):
        broadcast_shape([(None, 3), (None, 4)])


def test_a_position_is_dead_when_all_labels_that_stand_there_are_gone() -> None:
    axis = Axis(3, (np.array([[1, 2, 3], [4, 2, 0]]),))
    gone = np.zeros(9, bool)
    gone[[1, 2, 3]] = True
    assert axis.dead(gone).tolist() == [False, True, False]  # 4 and 0 are still there
    gone[4] = True
    assert axis.dead(gone).tolist() == [True, True, False]


def test_a_position_is_dead_when_the_labels_of_any_factor_are() -> None:
    axis = Axis(2, (np.array([[1, 2]]), np.array([[3, 4]])))
    assert axis.dead(np.isin(np.arange(9), [1, 4])).tolist() == [True, True]
    assert axis.dead(np.isin(np.arange(9), [3])).tolist() == [True, False]


def test_an_axis_repeats_and_tiles_as_numpy_does() -> None:
    ids = np.array([5, 7, 9])
    assert Axis.of(ids).repeat(2).ids.tolist() == np.repeat(ids, 2).tolist()
    assert Axis.of(ids).tile(2).ids.tolist() == np.tile(ids, 2).tolist()


@pytest.mark.parametrize("axis", [1, 2, -1])
def test_labels_along_an_axis_are_read_back_from_it(axis: int) -> None:
    labels = along((None, 3, 4), axis, 1)
    assert labels.axis(axis).ids.tolist() == list(range(1, 1 + (3, 4)[axis % 3 - 1]))
    assert [labels.varies(other) for other in (1, 2)] == [axis % 3 == other for other in (1, 2)]


def test_labels_that_turn_out_not_to_vary_are_folded() -> None:
    spread = np.broadcast_to(np.arange(1, 4)[:, None], (3, 5))
    assert fold(spread).shape == (3, 1)
    assert fold(np.arange(6).reshape(2, 3)).shape == (2, 3)


@pytest.mark.parametrize(
    ("inferred", "recorded", "together"),
    [
        (None, (None, 3), (None, 3)),
        ((None, 3), (7, None), (7, 3)),
        ((4, 3), (4, 3), (4, 3)),
        ((None, 3), (None, 4), None),
        ((None, 3), (None, 3, 1), None),
    ],
)
def test_two_accounts_of_a_shape_make_one_unless_they_contradict_each_other(
    inferred: tuple[int | None, ...] | None,
    recorded: tuple[int | None, ...],
    together: tuple[int | None, ...] | None,
) -> None:
    assert merged(inferred, recorded) == together
