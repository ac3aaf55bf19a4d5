"""Strategies for plans: any that can be made."""

from __future__ import annotations

from hypothesis import strategies as st

from kprune.select.plans.plan import Expect, LayerChoice, ModelCheck, Plan, Step
from kprune.select.ranking.options import NORMALIZATIONS, REDUCTIONS, WEIGHTINGS

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
runs = st.lists(st.tuples(st.integers(0, 300), st.integers(1, 200)), max_size=5)
index_lists = (
    st.lists(st.integers(-(2**70), 2**70), max_size=5)
    | st.lists(st.integers(0, 400), unique=True).map(sorted)
    | runs.map(lambda pairs: sorted({i for start, n in pairs for i in range(start, start + n)}))
)
index_texts = st.sampled_from(
    ["0-7", "!3,7", " 0-7", "@drop.txt", "where(mean < 0.1)", "-1", "7,3"]
)
optional_count = st.none() | st.integers(1, 10**12)
shares = st.floats(0, 1, exclude_min=True, exclude_max=True)
finite = st.floats(allow_nan=False, allow_infinity=False)
limits = (
    st.builds(lambda v: {"ratio": v}, shares)
    | st.builds(lambda v: {"count": v}, st.integers(1, 10**9))
    | st.builds(lambda v: {"threshold": v}, finite)
)
ranked = {
    "criterion": st.text(st.characters(exclude_categories=["Cs"])),
    "round_to": optional_count,
    "min_units": optional_count,
    "max_ratio": st.none() | shares,
    "seed": st.none() | st.integers(0, 2**40),
    "reduce": st.none() | st.sampled_from(REDUCTIONS),
    "normalize": st.none() | st.sampled_from(NORMALIZATIONS),
    "weighting": st.none() | st.sampled_from(WEIGHTINGS),
}
choices = st.builds(
    lambda limit, rest: LayerChoice(**limit, **rest), limits, st.fixed_dictionaries(ranked)
) | st.sampled_from(
    [LayerChoice(where=text) for text in ("mean < 0.1", "w[0,0,0] < 0\n", "not (gamma >= 1e-3)")]
)  # fmt: skip


@st.composite
def steps(draw) -> Step:
    backend = draw(st.sampled_from(["zero", "mask", "remove", "compact"]))
    if backend == "compact":
        which = draw(st.dictionaries(names, index_lists | index_texts, max_size=2))
        return Step(
            backend="compact", layers=which, merge=draw(st.booleans()), check=draw(st.booleans())
        )
    budget = backend == "remove" and draw(st.booleans())
    below = backend == "mask" and not budget and draw(st.booleans())
    if budget:
        choice = LayerChoice(**draw(st.fixed_dictionaries(ranked)))
        layers = st.dictionaries(names, st.just(choice), min_size=1, max_size=4)
    else:
        values = index_lists | index_texts
        values |= st.just("all") if below else choices
        layers = st.dictionaries(names, values, min_size=1, max_size=4)
    target = draw(st.sampled_from(["target_params", "target_flops", "target_bytes"]))
    classed = not budget and not below and draw(st.booleans())
    named = {
        "classes": draw(st.lists(names, min_size=1, max_size=4) | names),
        "class_names": draw(names),
        "class_layer": draw(st.none() | names),
    }
    return Step(
        backend=backend,
        layers={} if classed and draw(st.booleans()) else draw(layers),
        **(named if classed else {}),
        below=0.25 if below else None,
        data=draw(st.none() | names),
        together=budget and draw(st.booleans()),
        **({target: draw(st.sampled_from(["40%", "1.2M", 9000]))} if budget else {}),
        exclude=draw(st.lists(names, max_size=4)),
        outgoing=backend == "zero" and draw(st.booleans()),
        silence=backend == "zero" and draw(st.booleans()),
        fold=backend == "remove" and draw(st.booleans()),
        keep_tokens=draw(st.none() | st.dictionaries(names, names, min_size=1, max_size=2))
        if backend == "remove"
        else None,
        coupled=draw(st.booleans()),
        allow_output_change=draw(st.booleans()),
        drop_branches=backend == "remove" and draw(st.booleans()),
    )


amounts = (
    st.none() | st.integers(0, 10**15) | st.sampled_from(["<= 1300000", ">1e6", "7", " != 3 "])
)
plans = st.builds(
    Plan,
    version=st.just(1),
    steps=st.lists(steps(), min_size=1, max_size=3).filter(
        lambda made: sum(step.classes is not None and step.backend == "remove" for step in made) < 2
    ),
    model=st.none() | st.builds(ModelCheck, parameters=st.integers(0, 10**12)),
    expect=st.none()
    | st.builds(Expect, amounts, amounts, amounts, amounts, st.none() | st.booleans()),
)
