"""What results show of themselves: two to six lines of text, or a small table, in which nothing becomes markup."""

import json
from dataclasses import replace

import pyarrow as pa
import pytest

from curate.comparison import Comparison, Contender, Reading
from curate.eval_report import ArmScore, EvalReport
from curate.results import LEFT_OUT, SELECTION, Estimate, PoolScore, Run, Selection, ShiftReport

EVIL = '<script>alert("1")</script>'
INDEX = Estimate(value=4.91, low=3.7, high=6.12, n=(508, 670), unit="index", method="100 F / (F + tr S)", null=0.0)
NOTHING = Estimate(value=None, reason="too few images")


def pool(name, index=INDEX, **rest):
    rest = {"rank": 1, "verdict": "near", "action": "use", "n": 508, "before_next": 0.995, **rest}
    return PoolScore(name=name, index=index, metrics={"frechet": index, "copies": Estimate(value=0.01)}, **rest)


def report(*pools, **target):
    return ShiftReport(target={"n": 670, **target}, encoder={"name": "lite0"}, pools=pools, floor=NOTHING)


def selection(names, **facts):
    columns = {field.name: pa.nulls(len(names), field.type) for field in SELECTION}
    columns["source"] = pa.array(names, pa.string())
    facts = {"method": "near-first", "seed": 0, "stopped": None, **facts}
    table = pa.table(columns, schema=SELECTION)
    return Selection(table=table, left_out=LEFT_OUT.empty_table(), facts=facts, sources={})


def run(folder, curve=(), **facts):
    folder.mkdir(exist_ok=True)
    (folder / "curves.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in curve))
    facts = {"unique_images": 300, "samples_seen": 1_500, "health": {"verdict": "healthy"}, **facts}
    return Run(path=folder, facts={"config": {"method": "simclr", "init": "scratch"}, **facts})


def arm(name, kind, linear, *, gain=None, labeled="parts", **rest):
    against = {} if gain is None else {"linear": gain}
    metrics = {"linear": linear, "linear_balanced": linear}
    return ArmScore(arm=name, labeled=labeled, kind=kind, metrics=metrics, against_frozen=against, **rest)


GAIN = Estimate(value=-0.14, low=-0.19, high=-0.09)
EVALUATED = EvalReport(
    scores=(
        arm("frozen:lite0", "frozen", Estimate(value=0.75, low=0.7, high=0.8)),
        arm("near", "run", Estimate(value=0.61), gain=GAIN, label_equivalents=Estimate(value=72.4, low=35, high=99)),
        arm(EVIL, "run", Estimate(value=0.9), label_equivalents=Estimate(value=None, reason="more than 650")),
    ),
    labeled={"parts": {"n_test": 268}},
)
READ = Reading(index=INDEX, distance=INDEX, mmd=INDEX, coverage=INDEX, against_random=replace(GAIN, low=-9, high=-8))
COMPARED = Comparison(
    encoder="lite0",
    seen=10,
    judging=10,
    contenders=(
        Contender(method="near-first", n=5, readings={"lite0": READ}),
        Contender(method="random", n=5, readings={"lite0": replace(READ, against_random=None)}),
        Contender(method="broken", reason=EVIL),
    ),
)
SHOWN = {
    "no pool": report(),
    "one pool": report(pool("web")),
    "many pools": report(*(pool(f"{EVIL}{i}", rank=i + 1, before_next=None) for i in range(30))),
    "no index": report(pool("web", NOTHING)),
    "an unknown target": ShiftReport(target={}, encoder={}, pools=(), floor=NOTHING),
    "a pool": pool(EVIL, tied_with=(EVIL,), notes=(EVIL, "and\nmore"), before_next=None),
    "no image": selection([]),
    "a selection": selection(["web", EVIL], stopped={"reason": EVIL, "at": 2}, candidates={"web": 9, "open": 4}),
    "an evaluation": EVALUATED,
    "an empty evaluation": EvalReport(scores=(), labeled={}),
    "a comparison": COMPARED,
    "no comparison": Comparison(encoder="lite0", seen=0, judging=0, reason=EVIL),
    "a figure": INDEX,
    "no figure": replace(NOTHING, reason=EVIL),
}


@pytest.mark.parametrize("shown", SHOWN.values(), ids=SHOWN)
def test_is_short_and_harmless(shown):
    html = shown._repr_html_()
    assert "<script" not in html
    assert html.startswith("<div><b>")
    if not isinstance(shown, Estimate):
        assert 2 <= len(repr(shown).split("\n")) <= 6
        assert max(map(len, repr(shown).split("\n"))) <= 160


def test_a_score_says_what_a_person_decides_by():
    text = repr(
        report(pool("web"), pool("open", replace(INDEX, value=40.0, low=None), verdict="far", before_next=None))
    )
    assert text.split("\n") == [
        "ShiftReport(2 pools against 670 target images, lite0)",
        "  web: index 4.9 (3.7 to 6.1), verdict near, do use, before next > 99%, n 508",
        "  open: index 40.0, verdict far, do use, n 508",
        "  report['web']; curate.select(target, pools, budget=N)",
    ]


def test_a_score_of_a_target_of_which_nothing_is_known_says_so():
    assert repr(SHOWN["an unknown target"]).startswith("ShiftReport(0 pools against an unknown target, an unknown enc")
    one = replace(report(pool("web")), target={"n": 1})
    assert repr(one).startswith("ShiftReport(1 pool against 1 target image, lite0)")


def test_a_pool_says_its_place_and_its_measures():
    text = repr(pool("web", tied_with=("open",), before_next=0.6)).split("\n")
    assert text[0] == "web: index 4.9 (3.7 to 6.1), near; do: use"
    assert text[1] == "  rank 1; order open with open; before the next with probability 60%"
    assert text[2] == "  frechet: value 4.910 (3.700 to 6.120), if nothing differed 0"


def test_a_selection_says_what_was_spent_and_lost():
    spent = {"images": {"most": 300, "used": 3}, "money": {"most": 8.0, "used": 0.15}}
    chosen = selection(["web", "web", "open"], spent=spent, dropped={"duplicate": 8, "excluded": 0}, chosen={"web": 3})
    assert repr(chosen).split("\n")[:4] == [
        "Selection(3 images by near-first: web 2, open 1)",
        "  spent: images 3 of 300, money 0.15 of 8",
        "  left out: 8 duplicate",
        "  web: images 2, share 67%",
    ]
    unused = selection(["web"], candidates={"web": 9, "open": 4, "target": 0})._repr_html_()
    assert "open</td>" in unused
    assert "target</td>" not in unused
    assert "(5 images by near-first: a 1, b 1, c 1, d 1, 1 more)" in repr(selection(list("abcde")))
    assert "a part of a longer selection: near-first had chosen 3" in repr(chosen.truncate(1))


class TestRun:
    def test_says_how_it_went(self, tmp_path):
        health = {"verdict": "collapsed", "detail": "All alike.", "remedy": "Lower the learning rate."}
        text = repr(run(tmp_path, health=health, backbone="tiny-resnet@32")).split("\n")
        assert text[0] == "Run(simclr, tiny-resnet@32 from scratch, N=300, C=1,500, collapsed)"
        assert text[1:3] == ["  health: collapsed: All alike.", "  to do: Lower the learning rate."]
        assert len(text) <= 6

    def test_draws_its_loss_over_its_chance_value(self, tmp_path):
        curve = [{"samples_seen": seen, "loss": loss, "chance_loss": 6.0} for seen, loss in ((5, 6), (10, 1))]
        html = run(tmp_path, [*curve, {"samples_seen": 12, "loss": float("nan"), "chance_loss": 6.0}])._repr_html_()
        assert 'points="150.0,5.0 300.0,55.0"' in html
        assert '<path d="M0 5.0H300"' in html
        assert "loss 6.000 to 1.000; dashed: chance, 6.000" in html

    @pytest.mark.parametrize("curve", [(), [{"samples_seen": 5, "loss": 1.0}], None])
    def test_does_without_curves(self, tmp_path, curve):
        shown = run(tmp_path, curve or ())
        if curve is None:
            (tmp_path / "curves.jsonl").write_text('{"loss": 1')
        assert "svg" not in shown._repr_html_()
        (tmp_path / "curves.jsonl").unlink()
        assert "svg" not in shown._repr_html_()

    @pytest.mark.parametrize(
        "last",
        [
            {"samples_seen": 10, "loss": None},
            {"loss": 1.0},
            {"samples_seen": 0, "loss": 1.0},
            {"samples_seen": 10, "loss": "1", "chance_loss": 6.0},
            {"samples_seen": 10, "loss": 1.0, "chance_loss": "6"},
            {"samples_seen": 10, "loss": 10**400},
            [10, 1.0],
            None,
        ],
    )
    def test_does_without_damaged_curves(self, tmp_path, last):
        shown = run(tmp_path, [{"samples_seen": 0, "loss": 2.0}, last])
        assert "svg" not in shown._repr_html_()
        assert "collapsed" not in shown._repr_html_()

    @pytest.mark.parametrize("chance", [{"chance_loss": None}, {"chance_loss": float("nan")}, {}])
    def test_draws_no_line_of_a_chance_value_that_is_not_known(self, tmp_path, chance):
        html = run(tmp_path, [{"samples_seen": n, "loss": 9.0 / n, **chance} for n in (5, 10)])._repr_html_()
        assert 'points="150.0,5.0 300.0,55.0"' in html
        assert "dashed" not in html
        assert "<path" not in html


def test_an_evaluation_puts_gain_and_worth_beside_every_arm():
    minus = "\N{MINUS SIGN}"
    assert repr(EVALUATED).split("\n")[:3] == [
        "EvalReport(parts, 268 test images)",
        "  frozen:lite0: linear 0.750 (0.700 to 0.800)",
        f"  near: linear 0.610, against frozen {minus}0.140 ({minus}0.190 to {minus}0.090), worth labels 72 (35 to 99)",
    ]
    assert "<th" in EVALUATED._repr_html_()
    assert "more than 650" in EVALUATED._repr_html_()
    two = replace(EVALUATED, labeled={"parts": {"n_test": 5}, "lots": {}})
    assert "parts / near: " in repr(two)


def test_a_comparison_says_who_is_nearer_than_random():
    html = COMPARED._repr_html_()
    assert "index under lite0" in html
    assert "4.9 (3.7 to 6.1), nearer than random" in html
    assert repr(COMPARED).startswith("Comparison(3 methods, 10 judging images)\n  near-first is nearer than random")


def test_a_figure_tells_where_it_comes_from():
    html = INDEX._repr_html_()
    for told in ("4.910 (3.700 to 6.120)", "95%", "508 and 670 images", "100 F / (F + tr S)"):
        assert told in html
    assert "too few images" in NOTHING._repr_html_()
