"""What a study claims of planted accuracies: statuses, families, matching, shapes, and the folder as a whole."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score
from study_examples import cell, drawn, predictions, report, write_study

from curate.eval_report import EvalReport
from curate.evaluation._intervals import DRAWN, Resamples, accuracy
from curate.experiments.analysis import analyze, figures
from curate.experiments.claims import Claim, make_claims, settle
from curate.experiments.matching import Evidence
from curate.experiments.outcomes import outcome, read_outcomes
from curate.experiments.protocol import Contrast, Protocol, write_protocol
from curate.experiments.questions import leader_of, shape_of, shapes, sizes_of, which_wins
from curate.experiments.statistics import Draws, Effect, equivalence, spread, two_sided
from curate.experiments.tidy import FILE, TargetResults
from embeddings import files
from embeddings.errors import CorruptError, UnknownNameError, UsageError

PRIMARY = Protocol(primary=("near", "gated"))


def evidence_of(tmp_path, cells, accuracy, *, protocol=PRIMARY, noise=0.003, seed=0, m=600, **settings):
    """Evidence of planted accuracies, target by target."""
    found = []
    for number, target in enumerate(dict.fromkeys(c["target"] for c in cells)):
        own = [c for c in cells if c["target"] == target]
        right = drawn(own, accuracy, noise=noise, seed=seed + number, m=m, others=settings.get("others"))
        folder = write_study(tmp_path / target, own, right, kinds=settings.get("kinds"))
        found.append(TargetResults.open(target, folder, own))
    return Evidence(targets=tuple(found), protocol=protocol)


def cells_of(*arms, seeds=4, **facts):
    return [cell(arm, seed=s, **facts) for arm in arms for s in range(seeds)]


def by_arm(**shares):
    return lambda one: shares[one["arm"]]


# outcomes


def test_outcomes_are_the_accuracies_and_their_influences():
    rng = np.random.default_rng(0)
    truth, unit = rng.integers(3, size=90), np.arange(90) // 3
    correct = rng.random(90) < 0.6
    for metric in ("linear", "linear_balanced"):
        found = outcome(correct, truth, unit, metric=metric)
        said = np.where(correct, truth, (truth + 1) % 3)
        wanted = correct.mean() if metric == "linear" else balanced_accuracy_score(truth, said)
        assert found.value == pytest.approx(wanted)
        assert found.influence.sum() == pytest.approx(0)
        drawn_units = rng.integers(30, size=(3000, 30))
        rows = (drawn_units[:, :, None] * 3 + np.arange(3)).reshape(3000, -1)
        values = [outcome(correct[r], truth[r], np.arange(90), metric=metric).value for r in rows]
        assert np.sqrt((found.influence**2).sum()) == pytest.approx(np.std(values), rel=0.06)


def test_squares_of_influences_are_the_variance_over_images_without_bias():
    """Classes of two, three and five images, right by chance: the exact variance, enumerated by simulation of all."""
    truth, chance = np.repeat([0, 1, 2], [2, 3, 5]), np.repeat([0.5, 0.7, 0.9], [2, 3, 5])
    rng = np.random.default_rng(0)
    found = [
        outcome(rng.random(10) < chance, truth, np.arange(10), metric="linear_balanced").influence for _ in range(1500)
    ]
    wanted = (chance * (1 - chance) / np.bincount(truth)[truth] ** 2 / 9).sum()
    assert np.mean([(influence**2).sum() for influence in found]) == pytest.approx(wanted, rel=0.03)


def test_classes_of_one_unit_are_taken_as_drawn_from_all():
    """With one image in every class, balanced accuracy is accuracy; two images of one unit are one."""
    correct = np.random.default_rng(0).random(40) < 0.6
    single, plain = (outcome(correct, np.arange(40), np.arange(40), metric=m) for m in ("linear_balanced", "linear"))
    assert single.influence == pytest.approx(plain.influence)
    assert single.weights == pytest.approx(np.full(40, 1 / 40))
    twins = outcome(np.repeat(correct, 2), np.repeat(np.arange(40), 2), np.arange(80) // 2, metric="linear_balanced")
    assert twins.influence == pytest.approx(plain.influence)


def test_outcomes_of_a_report_are_its_accuracies():
    right = {"frozen:lite0": np.arange(60) % 2 == 0, "b": np.arange(60) % 3 == 0, "a": np.arange(60) % 5 == 0}
    found = read_outcomes(report(right, units=np.arange(60) // 2))
    assert {name: o.value for name, o in found.by_arm.items()} == {name: c.mean() for name, c in right.items()}
    assert found.units.tolist() == [f"k{i:05d}" for i in range(0, 60, 2)]


def test_labeled_sets_are_averaged_and_an_image_of_both_is_one_unit():
    first, second = ({"a": np.arange(40) % n == 0} for n in (2, 4))
    tables = [predictions(first, labeled="coarse"), predictions(second, labeled="fine")]
    import pyarrow as pa

    whole = EvalReport(scores=(), labeled={"coarse": {}, "fine": {}}, predictions=pa.concat_tables(tables))
    both = read_outcomes(whole)
    assert both.by_arm["a"].value == pytest.approx((0.5 + 0.25) / 2)
    assert len(both.units) == 40
    assert read_outcomes(whole, labeled=["fine"]).by_arm["a"].value == 0.25
    with pytest.raises(UnknownNameError):
        read_outcomes(whole, labeled=["finest"])


def test_cross_fitted_images_leave_as_much_open_as_in_an_evaluation():
    """Against its resamples, and to the same extent in all that images make a claim vary by."""
    right = dict(zip(["frozen:lite0", "a"], np.random.default_rng(0).random((2, 200)) < 0.7, strict=True))
    plain, folded = (
        read_outcomes(replace(report(right), labeled={"kinds": {"folds": folds}})).by_arm for folds in (1, 5)
    )
    drawn = Resamples(units=np.arange(200), n_train=160, folds=5).measure({"a": accuracy(right["a"])})["a"].draws
    assert np.sqrt((folded["a"].influence ** 2).sum()) == pytest.approx(drawn.std(), rel=0.05)
    assert folded["a"].value == plain["a"].value
    units = np.arange(200)
    narrow, wide = (
        spread([Draws(values=np.array([o.value]), influence=o.influence[None], weights=o.weights, units=units)])
        for o in (plain["a"], folded["a"])
    )
    assert wide.from_images == pytest.approx(narrow.from_images / DRAWN)
    assert wide.discordant == pytest.approx(narrow.discordant)


def test_without_predictions_or_on_different_images_nothing_is_claimed():
    with pytest.raises(UsageError, match="no predictions"):
        read_outcomes(EvalReport(scores=(), labeled={}))
    table = predictions({"a": np.ones(9, bool), "b": np.ones(9, bool)}).slice(0, 17)
    with pytest.raises(CorruptError, match="different images of kinds"):
        read_outcomes(EvalReport(scores=(), labeled={"kinds": {}}, predictions=table))


# statuses


@pytest.mark.parametrize(
    ("near", "gated", "status"), [(0.80, 0.65, "supported"), (0.65, 0.80, "refuted"), (0.702, 0.700, "undecided")]
)
def test_the_primary_contrast(tmp_path, near, gated, status):
    evidence = evidence_of(tmp_path, cells_of("near", "gated", "other"), by_arm(near=near, gated=gated, other=0.5))
    claims = make_claims(evidence)
    first = claims[0]
    assert (first.question, first.status, first.family) == ("primary", status, "")
    assert first.p_adjusted == first.effect.p
    assert first.sentence.startswith(f"near is more accurate than gated: {status}; linear 0.")
    assert first.effect.value == pytest.approx(first.means[0] - first.means[1])
    assert first.effect.low <= near - gated <= first.effect.high


def test_arms_that_do_the_same_are_equivalent(tmp_path):
    cells = cells_of("near", "gated")
    right = drawn(cells, by_arm(near=0.7, gated=0.7))
    for seed in range(4):
        right[f"gated~N500~s{seed}"] = right[f"near~N500~s{seed}"]
    write_study(tmp_path, cells, right)
    evidence = Evidence(targets=(TargetResults.open("mine", tmp_path, cells),), protocol=PRIMARY)
    (first, *_) = make_claims(evidence)
    assert (first.status, first.effect.value, first.effect.se) == ("equivalent", 0.0, pytest.approx(1 / 600))
    assert (first.effect.p, first.effect.low) == (1.0, -first.effect.high)


def test_a_difference_told_from_nothing_but_too_small_to_matter_is_equivalent():
    small = Effect(value=0.004, low=0.001, high=0.007, p=0.01, p_equivalence=0.001, matters=0.01, seeds=5, units=500)
    (found,) = settle([Claim(question="primary", statement="a is better", effect=small)])
    assert found.status == "equivalent"


def test_one_seed_is_undecided_however_large_the_difference(tmp_path):
    evidence = evidence_of(tmp_path, cells_of("near", "gated", seeds=1), by_arm(near=0.9, gated=0.5))
    first = make_claims(evidence)[0]
    assert first.status == "undecided"
    assert first.effect.low > 0
    assert "one draw; the interval covers test images only" in first.sentence


def test_every_arm_is_set_against_the_references_that_were_evaluated(tmp_path):
    others, kinds = {"supervised:tiny": 0.3, "finetuned:lite0": 0.9}, {}
    kinds = {"supervised:tiny": "supervised", "finetuned:lite0": "finetuned"}
    evidence = evidence_of(
        tmp_path, cells_of("near", "gated"), by_arm(near=0.75, gated=0.5), others=others, kinds=kinds
    )
    found = {(c.question, c.sides[0]): c.status for c in make_claims(evidence)}
    assert found["frozen", "near"] == "supported"  # frozen reads 0.6
    assert found["frozen", "gated"] == "refuted"
    assert found["supervised", "gated"] == "supported"
    assert found["finetuned", "near"] == "refuted"


def test_a_run_fine_tuned_is_set_against_the_fine_tuned_encoder(tmp_path):
    cells = cells_of("near", seeds=3)
    tuned = {f"finetuned:{c['name']}": 0.9 for c in cells}
    kinds = dict.fromkeys([*tuned, "finetuned:lite0"], "finetuned")
    evidence = evidence_of(
        tmp_path, cells, by_arm(near=0.5), others={**tuned, "finetuned:lite0": 0.7}, kinds=kinds, protocol=Protocol()
    )
    (both,) = [c for c in make_claims(evidence) if c.question == "finetuned, both"]
    assert both.status == "supported"
    assert both.means == pytest.approx((0.9, 0.7), abs=0.05)


def claim_with(p, family="", q=1.0):
    found = Effect(value=0.1, low=0.0, high=0.2, p=p, p_equivalence=q, seeds=3, units=100)
    return Claim(question="q", statement="s", family=family, effect=found)


def test_holm_is_within_each_family_and_leaves_the_primary_contrast_alone():
    families = [(0.04, ""), (0.024, "f"), (0.01, "f"), (0.04, "g"), (0.04, "")]
    found = settle([claim_with(p, family) for p, family in families])
    assert [c.p_adjusted for c in found] == pytest.approx([0.04, 0.048, 0.02, 0.04, 0.04])
    assert {c.status for c in found} == {"supported"}
    three = settle([claim_with(p, "f") for p in (0.03, 0.02, 0.04)])
    assert {c.status for c in three} == {"undecided"}


def test_one_holm_is_over_both_tests_of_a_claim():
    """Claims are counted until both of their tests are passed: three, three, then two."""
    found = settle([claim_with(0.01, "f", q=0.001), claim_with(0.02, "f"), claim_with(0.5, "f", q=0.024)])
    assert [c.p_adjusted for c in found] == pytest.approx([0.03, 0.04, 1.0])
    assert [c.p_equivalence_adjusted for c in found] == pytest.approx([0.003, 1.0, 0.048])
    assert [c.status for c in found] == ["equivalent", "supported", "equivalent"]


def test_a_family_of_no_and_of_just_mattering_differences_has_a_false_claim_at_most_as_often_as_it_says():
    """With a Holm for each kind of test it would be 9% of families."""
    rng, n, false = np.random.default_rng(0), 1500, 0
    true, se = np.array([0.0, 0.01]), 0.003
    for _ in range(n):
        values = true + se * rng.standard_normal(2)
        p, q = (two_sided(v, se, np.inf) for v in values), (equivalence(v, se, np.inf, matters=0.01) for v in values)
        claims = [claim_with(a, "f", q=b) for a, b in zip(p, q, strict=True)]
        first, second = (claim.status for claim in settle(claims))
        false += first in ("supported", "refuted") or second == "equivalent"
    assert 0.035 <= false / n <= 0.065


def test_power_is_told(tmp_path):
    found = make_claims(evidence_of(tmp_path, cells_of("near", "gated"), by_arm(near=0.7, gated=0.6)))[0]
    assert f"power {found.effect.power:.2f} for 0.01, least difference told with 80% power" in found.sentence


# matching


def test_runs_are_paired_by_seed_and_setting_and_what_lacks_a_counterpart_is_told(tmp_path):
    cells = [*cells_of("near", seeds=4), *cells_of("gated", seeds=3)]
    evidence = evidence_of(tmp_path, cells, by_arm(near=0.7, gated=0.6))
    match = evidence.compare(Contrast.of_arms("near", "gated", "x"))
    assert len(match.conditions[0].values) == 3
    assert match.notes == ("1 runs have no counterpart of the same seed",)
    right = evidence.outcomes["mine"].by_arm
    wanted = [right[f"near~N500~s{s}"].value - right[f"gated~N500~s{s}"].value for s in range(3)]
    assert match.conditions[0].values == pytest.approx(wanted)


def test_arms_that_differ_in_method_too_are_compared_and_told(tmp_path):
    cells = [*cells_of("near"), *cells_of("gated", method="byol")]
    match = evidence_of(tmp_path, cells, by_arm(near=0.7, gated=0.6)).compare(Contrast.of_arms("near", "gated", "x"))
    assert match.notes == ("they also differ in method",)
    assert len(match.conditions) == 1


def test_runs_of_unequal_samples_are_never_compared(tmp_path):
    cells = [*cells_of("near"), *cells_of("gated", samples=20_000)]
    evidence = evidence_of(tmp_path, cells, by_arm(near=0.7, gated=0.6))
    (first, *_) = make_claims(evidence)
    assert (first.status, first.effect) == ("undecided", None)
    assert first.sentence == "near is more accurate than gated: undecided; they have no C in common."


def test_selections_that_fell_short_are_told(tmp_path):
    cells = [*cells_of("near", realized=400), *cells_of("gated")]
    match = evidence_of(tmp_path, cells, by_arm(near=0.7, gated=0.6)).compare(Contrast.of_arms("near", "gated", "x"))
    assert match.notes == ("their selections hold 400 and 500 images",)


def test_runs_that_were_stopped_early_are_told_in_the_claim(tmp_path):
    stopped = {"at": 4_000, "saved": 0.6}
    cells = [cell("near", seed=s, stopped=stopped if s == 1 else None) for s in range(3)] + cells_of("gated", seeds=3)
    primary, *others = make_claims(evidence_of(tmp_path, cells, by_arm(near=0.7, gated=0.6)))
    assert primary.notes == ("1 of 3 and 0 of 3 runs were stopped early and saw fewer samples",)
    assert primary.sentence.endswith("; 1 of 3 and 0 of 3 runs were stopped early and saw fewer samples.")
    of_frozen = {c.sides[0]: c.notes for c in others if c.question == "frozen"}
    assert of_frozen == {"near": ("1 of 3 runs were stopped early and saw fewer samples",), "gated": ()}


def test_where_limits_what_is_averaged(tmp_path):
    cells = [*cells_of("near", "gated"), *cells_of("near", "gated", images=900)]

    def accuracy(one):
        return {("near", 500): 0.8, ("gated", 500): 0.6, ("near", 900): 0.6, ("gated", 900): 0.8}[
            one["arm"], one["images"]
        ]

    whole = evidence_of(tmp_path / "a", cells, accuracy)
    assert make_claims(whole)[0].effect.value == pytest.approx(0, abs=0.02)
    assert "2 settings are averaged" in make_claims(whole)[0].sentence
    limited = evidence_of(
        tmp_path / "b", cells, accuracy, protocol=Protocol(primary=("near", "gated"), where={"images": (500,)})
    )
    assert make_claims(limited)[0].effect.value == pytest.approx(0.2, abs=0.02)


def test_a_contrast_of_any_two_sides(tmp_path):
    """Near images repeated against far images added: other arms, other N, one C."""
    cells = [*cells_of("near", images=250), *cells_of("gated", images=1000)]
    contrast = Contrast(
        name="repeats against additions",
        first={"arm": ("near",), "images": (250,)},
        second={"arm": ("gated",), "images": (1000,)},
    )
    protocol = Protocol(contrasts=(contrast,), secondary=())
    evidence = evidence_of(tmp_path, cells, by_arm(near=0.7, gated=0.6), protocol=protocol)
    (claim,) = [c for c in make_claims(evidence) if c.question == "repeats against additions"]
    assert claim.status == "supported"
    assert claim.statement == "near at images 250 is more accurate than gated at images 1000"


def test_targets_are_averaged_and_each_has_its_own_seeds(tmp_path):
    cells = [c for t in ("one", "two", "three") for c in cells_of("near", "gated", seeds=2, target=t)]
    first = make_claims(evidence_of(tmp_path, cells, by_arm(near=0.75, gated=0.6)))[0]
    assert (first.effect.conditions, first.effect.seeds, first.targets) == (3, 2, ("one", "two", "three"))
    assert first.effect.df > 1
    assert first.status == "supported"


def test_settings_of_one_target_are_not_runs_of_their_own(tmp_path):
    """Two settings whose runs do the very same are no more evidence than one."""
    cells = [c for method in ("simclr", "byol") for c in cells_of("near", "gated", method=method)]
    right = drawn(cells[:8], by_arm(near=0.7, gated=0.68), noise=0.01)
    for c in cells[8:]:
        right[f"{c['name']}~byol"] = right[c["name"]]
        c["name"] += "~byol"
    write_study(tmp_path, cells, right)
    both, one = (
        Evidence(targets=(TargetResults.open("mine", tmp_path, own),), protocol=PRIMARY) for own in (cells, cells[:8])
    )
    found, alone = (make_claims(evidence)[0].effect for evidence in (both, one))
    assert (found.value, found.low, found.df) == pytest.approx((alone.value, alone.low, alone.df))


# questions


def test_which_arm_wins(tmp_path):
    cells = cells_of("near", "gated", "other")
    (clear,) = which_wins(evidence_of(tmp_path / "a", cells, by_arm(near=0.6, gated=0.8, other=0.5)))
    assert (clear.status, clear.sides) == ("supported", ("gated", "near"))
    assert clear.statement == "gated wins at N 500, C 10,000, method simclr, init public"
    assert clear.effect.value > 0
    tied = which_wins(evidence_of(tmp_path / "b", cells, by_arm(near=0.7, gated=0.702, other=0.5), noise=0.02))[0]
    assert tied.status == "undecided"
    assert "told from other" in tied.sentence
    assert len(which_wins(evidence_of(tmp_path / "c", cells_of("near"), by_arm(near=0.7)))) == 0


def test_an_arm_that_ran_on_an_easier_target_does_not_lead_by_it(tmp_path):
    cells = [*cells_of("a", "b", target="easy"), *cells_of("a", target="hard")]
    base = {"easy": 0.85, "hard": 0.5}
    evidence = evidence_of(tmp_path, cells, lambda one: base[one["target"]] + 0.08 * (one["arm"] == "a"))
    (found,) = which_wins(evidence)
    assert (found.status, found.sides, found.targets) == ("supported", ("a", "b"), ("easy",))
    assert found.effect.value == pytest.approx(0.08, abs=0.02)


def test_the_leader_is_never_worse_than_another_where_one_is_not():
    def claim(value, status="undecided"):
        effect = None if value is None else Effect(value=value)
        return Claim(question="Q1", statement="", effect=effect, status=status)

    pairs = {("a", "b"): claim(0.2), ("a", "c"): claim(-0.01), ("b", "c"): claim(-0.001)}
    assert leader_of(["a", "b", "c"], pairs) == "c"
    assert leader_of(["a", "b", "c"], {**pairs, ("b", "c"): claim(None)}) == "a"  # compared with both others


def test_a_ring_of_arms_is_told_and_has_no_winner(tmp_path):
    """Pairs share different targets, and in them a beats b, b beats c and c beats a."""
    pairs = {"one": ("a", "b"), "two": ("b", "c"), "three": ("c", "a")}
    cells = [c for target, arms in pairs.items() for c in cells_of(*arms, target=target)]
    evidence = evidence_of(tmp_path, cells, lambda one: 0.8 if pairs[one["target"]][0] == one["arm"] else 0.6)
    (found,) = which_wins(evidence)
    assert found.status == "undecided"
    assert "it is worse than" in found.sentence


def test_sizes_that_hold_the_same_are_one():
    assert sizes_of({1000: [700, 700], 500: [500], 5000: [701, 703]}) == {500: (500,), 700: (1000, 5000)}


def test_the_shape_is_over_the_images_that_selections_hold(tmp_path):
    cells = [c for n in (500, 1000, 5000) for c in cells_of("near", images=n, realized=min(n, 700))]
    (found,) = shapes(evidence_of(tmp_path / "a", cells, lambda one: 0.5 + 0.0005 * one["realized"]))
    assert "levels N 500 (D 0.05), N 700 (D 0.07, asked 1,000 and 5,000)" in found.sentence
    assert found.status == "supported"
    assert found.effect.value == pytest.approx(0.1, abs=0.02)
    same = [c for c in cells if c["images"] > 500]
    (nothing,) = shapes(evidence_of(tmp_path / "b", same, lambda one: 0.7))
    assert (nothing.status, nothing.effect) == ("undecided", None)
    assert "all sizes asked hold as many images; levels N 700 (D 0.07, asked 1,000 and 5,000)" in nothing.sentence


@pytest.mark.parametrize(
    ("levels", "shape", "status"),
    [
        ((0.5, 0.6, 0.7), "rises with", "supported"),
        ((0.7, 0.6, 0.5), "falls with", "supported"),
        ((0.5, 0.7, 0.55), "peaks between", "supported"),
        ((0.6, 0.602, 0.601), "changes with", "undecided"),
    ],
)
def test_the_shape_over_diversity(tmp_path, levels, shape, status):
    sizes = (100, 300, 900)
    cells = [c for n in sizes for c in cells_of("near", images=n)]
    by_size = dict(zip(sizes, levels, strict=True))
    (found,) = shapes(evidence_of(tmp_path, cells, lambda one: by_size[one["images"]], noise=0.008))
    assert found.status == status
    assert f"The accuracy of near {shape}" in found.statement
    assert "levels N 100 (D 0.01), N 300 (D 0.03), N 900 (D 0.09)" in found.sentence
    assert found.effect.value == pytest.approx(levels[-1] - levels[0], abs=0.03)  # the largest against the smallest
    assert found.effect.low <= found.effect.value <= found.effect.high


def test_shapes_by_what_is_told():
    pairs = [(0, 1), (0, 2), (1, 2)]

    def shape(*told, is_flat=False):
        return shape_of([0, 1, 2], dict(zip(pairs, told, strict=True)), is_flat=is_flat)

    assert shape(1, 1, 0) == "rise"
    assert shape(0, 0, 1) == ""
    assert shape(1, 1, -1) == "peak"
    assert shape(-1, 1, 1) == ""  # a dip is neither
    assert shape(0, -1, -1) == "fall"
    assert shape(0, 0, 0) == ""
    assert shape(0, 0, 0, is_flat=True) == "flat"


def test_the_order_of_cells_changes_nothing(tmp_path):
    cells = cells_of("near", "gated", "other")
    right = drawn(cells, by_arm(near=0.8, gated=0.7, other=0.5), noise=0.003)
    write_study(tmp_path, cells, right)
    told = []
    for order in (cells, [*cells[4:8], *cells[:4], *cells[8:]]):
        evidence = Evidence(targets=(TargetResults.open("mine", tmp_path, order),), protocol=PRIMARY)
        told.append([*sorted(c.sentence for c in which_wins(evidence)), make_claims(evidence)[0].sentence])
    assert told[0] == told[1]


# the whole


def test_a_folder_is_analyzed_and_its_results_written(tmp_path):
    cells = [c for n in (100, 900) for c in cells_of("near", "gated", images=n)]
    right = drawn(cells, by_arm(near=0.8, gated=0.7), noise=0.003)
    digest = write_protocol(PRIMARY, "abc", tmp_path)
    write_study(tmp_path, cells, right)
    found = analyze(tmp_path)
    document = files.read_json(tmp_path / "study-results.json")
    assert document == json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert (document["schema"], document["protocol_sha256"], document["exploratory"]) == (
        "curate.study/1",
        digest,
        False,
    )
    assert {"primary", "frozen", "Q1", "Q2"} <= {c["question"] for c in document["claims"]}
    assert found.claims[0].question == "primary"
    assert found.of("primary")[0].status == "supported"
    assert set(files.read_table(tmp_path / FILE)["protocol"].to_pylist()) == {digest}
    assert found.lines()[1].startswith("primary: near is more accurate than gated: supported")


def test_targets_in_folders_of_their_own_and_one_that_is_not_ready(tmp_path):
    for target in ("one", "two"):
        cells = cells_of("near", "gated", target=target)
        write_study(tmp_path / target, cells, drawn(cells, by_arm(near=0.8, gated=0.7)))
    late = cells_of("near", target="late")
    files.write_json(tmp_path / "late" / "cells.json", {"schema": "curate.cells/1", "cells": late, "nested": []})
    found = analyze(tmp_path)
    assert found.is_exploratory
    assert found.lines()[0].startswith("Exploratory")
    assert found.notes == ("late is not evaluated yet.",)
    assert found.of("secondary")[0].effect.conditions == 2


def test_nothing_to_analyze(tmp_path):
    with pytest.raises(UsageError, match="holds no evaluated study"):
        analyze(tmp_path)


def test_figures_are_the_accuracies_with_intervals(tmp_path):
    cells = [c for n in (100, 900) for c in cells_of("near", "gated", images=n)]
    evidence = evidence_of(tmp_path, cells, by_arm(near=0.8, gated=0.7))
    found = figures(evidence)
    points = found["accuracy_by_arm"]["series"]
    assert [(p["arm"], p["images"]) for p in points] == [("near", 100), ("gated", 100), ("near", 900), ("gated", 900)]
    for point in points:
        names = [c["name"] for c in cells if (c["arm"], c["images"]) == (point["arm"], point["images"])]
        values = [evidence.outcomes["mine"].by_arm[name].value for name in names]
        assert point["value"] == pytest.approx(np.mean(values))
        assert point["low"] < point["value"] < point["high"]
        frozen = found["accuracy_by_arm"]["references"][0]["value"]
        assert point["gain"]["value"] == pytest.approx(point["value"] - frozen)
    near = found["accuracy_by_diversity"]["series"][0]
    assert [(p["diversity"], p["realized_images"]) for p in near["points"]] == [(0.01, 100), (0.09, 900)]
