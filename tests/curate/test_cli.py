import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from curate import cli, scoring
from curate.cli import choosing, main
from curate.results import Selection
from curate.session import Session, Shared, parse_named
from curate.terms import Terms
from embeddings.encoders import encoder_names
from embeddings.progress import silent

FLAGS = {
    "embed": {"source", "out", "encoder", "tiles", "overlap", "roi", "exact-decode", "max-errors", "retry-errors"},
    "moments": {"source", "out", "encoder", "directions", "classes", "histograms", "over"},
    "score": {"target", "pool", "out", "encoder", "judge", "also", "pool-size", "fail-above"},
    "select": {"out", "budget", "target", "pool", "method", "compare", "exclude", "weight", "past-knee"}
    | {"encoder", "judge"},
    "pretrain": {"selection", "samples", "out", "method", "backbone", "init", "set", "explain"},
    "evaluate": {"labeled", "arm", "out", "also", "set", "split-by", "encoder", "allow-unequal"},
    "augmentations": {"labeled", "out", "encoder"},
    "export": {"folder", "to", "out", "first", "link", "label", "shard-size"},
    "run": {"file", "out", "until", "encoder"},
    "demo": {"out", "until", "encoder"},
    "explain": {"folder", "key"},
    "report": {"folder"},
    "doctor": set(),
    "encoders": {"pattern"},
}
SHARED = {"config", "seed", "device", "workers", "work", "json", "dry-run", "quiet", "debug"}


@pytest.fixture
def curate(capsys, tmp_path, monkeypatch):
    """``curate(*words)`` -> (exit code, stdout, stderr), in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CURATE_ENCODER", "color-texture")  # 224 numbers an image: cheap to make and to compare

    def run(*words):
        with pytest.raises(SystemExit) as stopped:
            main([str(w) for w in words])
        out, err = capsys.readouterr()
        return stopped.value.code, out, err

    return run


@pytest.fixture
def folders(image_folder, pictures):
    """A target, a pool like it and a pool unlike it."""
    return {
        "target": image_folder(pictures(40, seed=1), "target"),
        "like": image_folder(pictures(40, seed=1, size=(18, 14)), "like"),
        "unlike": image_folder(pictures(30, seed=7, classes=("a", "b", "c")), "unlike"),
    }


def words_of(text):
    return " ".join(text.split())


def test_flags_are_frozen():
    for name, flags in FLAGS.items():
        command = cli.app[name]
        found = {n.lstrip("-") for a in command.assemble_argument_collection() for n in a.names if n.startswith("--")}
        positional = flags & {"source", "file", "folder", "pattern", "key"}
        assert {f for f in found if not f.startswith("no-")} | positional == flags | SHARED, name
        assert len(flags - positional) <= (11 if name == "select" else 8), name  # DESIGN names nine of the eleven


def test_help_is_quick_because_torch_is_not_imported():
    code = "import sys; from curate.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False\n")
    assert "Exit codes: 0 done" in words_of(done.stdout)


def test_from_folders_to_a_selection(curate, folders):
    pools = ["--pool", f"like={folders['like']}", "--pool", f"unlike={folders['unlike']}"]
    code, out, _ = curate("score", "--target", folders["target"], *pools, "--out", "scored", "--quiet")
    assert code == 0
    assert "1. like" in out
    assert Path("scored/report.html").exists()
    code, out, _ = curate("score", "--target", folders["target"], *pools, "--json", "--quiet")
    document = json.loads(out)
    assert document["schema"] == "curate.score/1"
    assert [p["name"] for p in document["pools"]] == ["like", "unlike"]
    assert document == json.loads(Path("scored/score.json").read_text())
    wanted = ["select", "--target", folders["target"], *pools, "--budget", 20, "--out", "chosen", "--json", "--quiet"]
    code, out, _ = curate(*wanted)
    assert code == 0
    assert sum(json.loads(out)["counts"].values()) == 20
    assert curate(*wanted)[1] == out  # the same command again
    code, _, err = curate(*[21 if w == 20 else w for w in wanted])  # another budget in the same folder
    assert code == 2
    assert "budget" in err


def test_a_store_made_by_embed_is_a_source(curate, folders):
    code, out, _ = curate("embed", folders["target"], "--out", "store", "--encoder", "lite0@32", "--quiet")
    assert (code, "40 x 1280" in out) == (0, True)
    code, out, _ = curate("score", "--target", "store", "--encoder", "lite0@32", "--json", "--quiet")
    assert json.loads(out)["target"]["n"] == 40


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["score", "--target", "absent"], 2, "absent"),
        (["score"], 2, "No target was given. Say --target"),
        (["score", "--targt", "x"], 2, "--target"),
        (["skore"], 2, "score"),
        (["score", "--target", "{target}", "--pool", "{like}"], 2, "found no name. Write --pool NAME="),
        (["score", "--target", "{target}", "--pool", "a={like}", "--pool", "a={like}"], 2, "names 'a' twice"),
        (["score", "--target", "{target}", "--pool", "target={like}"], 2, "cannot name a pool"),
        (["score", "--target", "{target}", "--encoder", "lite1"], 2, "Did you mean lite0"),
        (["score", "--target", "empty"], 2, "empty"),
        (
            ["score", "--target", "{target}", "--pool", "one=one"],
            2,
            "pool 'one' has 1 image; a distance needs at least 20",
        ),
        (["score", "--target", "one", "--pool", "a={like}"], 2, "target has 1 image;"),
        (["score", "--target", "corrupt"], 4, "None of the 3 images"),
        (["select", "--target", "{target}", "--out", "o"], 2, "No budget was given"),
        (["select", "--target", "{target}", "--budget", "0", "--out", "o"], 2, "images is 0; wanted a whole number"),
        (["select", "--target", "{target}", "--budget", "money=x", "--out", "o"], 2, "money is 'x'; wanted a number"),
        (["select", "--target", "{target}", "--budget", "5,000", "--out", "o"], 2, "says images twice"),
        (["select", "--target", "{target}#cap:x", "--budget", "5", "--out", "o"], 2, "cap is 'x'; wanted a whole"),
        (
            ["select", "--target", "{target}", "--pool", "a={like}", "--budget", "money=5", "--out", "o"],
            2,
            "#price:0.02",
        ),
        (["select", "--target", "{target}", "--budget", "5", "--weight", "cat", "--out", "o"], 2, "names nothing"),
        (
            ["select", "--target", "{target}", "--budget", "5", "--no-include-target", "--out", "o"],
            2,
            "no-include-target",
        ),
        (["select", "--target", "{target}", "--budget", "5", "--no-past-knee", "--out", "o"], 2, "no-past-knee"),
        (["select", "--target", "{target}", "--pool", "a={like}", "--budget", "4000", "--out", "o"], 2, "4,000"),
        (["select", "--target", "{target}", "--budget", "5", "--method", "near-frist", "--out", "o"], 2, "near-first"),
        (["pretrain", "--selection", "absent", "--samples", "100", "--out", "o"], 2, "No selection in 'absent'"),
        (["export", "absent", "--to", "csv", "--out", "o"], 2, "No selection in 'absent'"),
        (["explain", "absent", "a.png"], 2, "No selection in 'absent'"),
        (["select", "--target", "absent", "--pool", "x"], 2, "found no name"),
        (["select", "--target", "{target}", "--pool", "a=absent", "--budget", "5"], 2, "absent"),
        (["select", "--target", "{target}", "--pool", "a={like}", "--method", "near-frist"], 2, "near-first"),
        (["select", "--target", "{target}", "--pool", "a={like}", "--budget", "5"], 2, "No --out was given"),
        (["select", "--target", "{target}", "--pool", "a=absent"], 2, "No folder or file at"),
        (["select", "--target", "absent", "--pool", "a={like}", "--out", "o"], 2, "No folder or file at"),
        (["select", "--pool", "a=absent", "--budget", "5"], 2, "No folder or file at"),
        (["select", "--target", "{target}", "--exclude", "absent", "--method", "x"], 2, "No folder or file at"),
        (["select", "--target", "absent", "--budget", "5"], 2, "No folder or file at"),
        (["select", "--target", "{target}", "--pool", "a={like}"], 2, "No budget was given"),
        (["pretrain", "--selection", "absent", "--samples", "100"], 2, "No selection in 'absent'"),
        (["pretrain", "--selection", "absent", "--samples", "100", "--method", "simcrl"], 2, "Did you mean simclr"),
        (["export", "absent", "--to", "cvs"], 2, "Did you mean csv"),
        (["export", "absent", "--to", "csv"], 2, "No selection in 'absent'"),
        (["embed", "absent"], 2, "absent"),
        (["embed", "{target}", "--encoder", "lite1"], 2, "Did you mean lite0"),
        (["embed", "{target}"], 2, "No --out was given"),
        (["moments", "absent"], 2, "absent"),
        (["moments", "{target}"], 2, "No --out was given"),
        (["evaluate"], 2, "No labeled set was given"),
        (["evaluate", "--labeled", "x={target}", "--set", "reject=0.1"], 2, "reject changes nothing here"),
        (["run", "absent.toml"], 2, "No config file at absent.toml"),
        (["report", "empty"], 2, "empty"),
    ],
)
def test_bad_input_gives_one_clear_message_and_its_code(curate, folders, words, code, said):
    Path("empty").mkdir()
    Path("one").mkdir()
    Path("one/a.png").write_bytes((next(iter(folders["target"].rglob("*.png")))).read_bytes())
    Path("corrupt").mkdir()
    for name in "abc":
        Path(f"corrupt/{name}.png").write_bytes(b"not an image")
    found, out, err = curate(*[w.format(**folders) for w in words], "--quiet")
    assert found == code, err
    assert said in words_of(err)
    assert "Traceback" not in err
    assert out == ""
    assert not Path("o").exists() or not any(Path("o").iterdir())


def test_stores_of_different_encoders_are_never_compared(curate, folders):
    curate("embed", folders["target"], "--out", "one", "--quiet")
    curate("embed", folders["like"], "--out", "other", "--encoder", "lite0@32", "--quiet")
    code, _, err = curate("score", "--target", "one", "--pool", "like=other", "--quiet")
    assert code == 2
    assert "lite0@32" in words_of(err)


def test_errors_are_json_too_when_asked(curate):
    code, out, _ = curate("score", "--target", "absent", "--json")
    document = json.loads(out)
    assert (code, document["schema"], document["exit_code"]) == (2, "curate.error/1", 2)


def test_a_gate_fails_with_code_3_after_the_result_is_printed(curate, folders):
    words = ["score", "--target", folders["target"], "--pool", f"unlike={folders['unlike']}", "--quiet"]
    code, out, err = curate(*words, "--fail-above", 1)
    assert code == 3
    assert "1. unlike" in out
    assert "gate is 1" in words_of(err)
    assert curate(*words, "--fail-above", 99)[0] == 0


def test_a_failed_gate_leaves_one_json_document_on_stdout(curate, folders):
    words = ["score", "--target", folders["target"], "--pool", f"unlike={folders['unlike']}", "--quiet", "--json"]
    code, out, _ = curate(*words, "--fail-above", 1)
    assert (code, json.loads(out)["schema"]) == (3, "curate.score/1")


def test_results_are_never_written_into_a_folder_of_something_else(curate, folders):
    code, _, err = curate("score", "--target", folders["target"], "--out", folders["like"], "--quiet")
    assert (code, "is not empty" in words_of(err)) == (2, True)
    assert not (folders["like"] / "score.json").exists()


def test_select_by_a_file_keeps_out_what_the_file_tests_on(curate, folders, tmp_path):
    (tmp_path / "c.toml").write_text(
        f'[target]\nuri = "{folders["target"]}"\n[pools.like]\nuri = "{folders["like"]}"\n[budget]\nimages = 5\n'
        f'[evaluate.x]\ntrain = "{folders["target"]}"\ntest = "{folders["like"]}"\n'
    )
    code, out, err = curate("select", "--config", "c.toml", "--out", "chosen", "--json", "--quiet")
    assert code == 0, err
    assert json.loads(out)["counts"] == {"target": 5}  # every image of the pool is a test image


def test_the_version_is_the_package_s(curate):
    assert curate("--version")[1].strip() == metadata.version("curate-pretraining")


def test_too_many_failures_exit_4_and_keep_a_usable_store(curate, folders):
    for i in range(10):
        (folders["target"] / f"bad{i}.png").write_bytes(b"broken")
    code, _, err = curate("embed", folders["target"], "--out", "store", "--quiet")
    assert code == 4
    assert "10 of 50 images failed" in words_of(err)
    assert curate("embed", folders["target"], "--out", "store", "--max-errors", 0.5, "--quiet")[0] == 0


def test_dry_run_does_nothing(curate, folders):
    before = sorted(Path().rglob("*"))
    for words in (
        ["score", "--target", folders["target"], "--pool", f"like={folders['like']}"],
        ["select", "--target", folders["target"], "--pool", f"like={folders['like']}", "--budget", 5, "--out", "o"],
        ["select", "--target", folders["target"], "--pool", f"like={folders['like']}", "--budget", 5],
        ["embed", folders["target"]],
        ["evaluate", "--labeled", f"x={folders['target']}"],
        ["demo", "--out", "o"],
    ):
        code, out, _ = curate(*words, "--dry-run", "--quiet")
        assert (code, "Nothing was done" in out) == (0, True)
    assert sorted(Path().rglob("*")) == before


def test_dry_run_of_a_selection_opens_what_is_excluded_too(curate, folders):
    words = ["select", "--target", folders["target"], "--pool", f"like={folders['like']}", "--budget", 5, "--out", "o"]
    code, out, _ = curate(*words, "--exclude", folders["unlike"], "--exclude", folders["like"], "--dry-run", "--json")
    sources = json.loads(out)["sources"]
    assert code == 0
    assert [sources[name]["images"] for name in ("target", "like", "exclude #1", "exclude #2")] == [40, 40, 30, 40]
    code, _, err = curate(*words, "--exclude", "absent", "--dry-run", "--quiet")
    assert (code, "absent" in words_of(err)) == (2, True)


def test_precedence_is_flag_then_environment_then_file_then_default(curate, monkeypatch, tmp_path):
    (tmp_path / "c.toml").write_text('seed = 1\nwork = "from-file"\n[target]\nuri = "t"\n')

    def seed(*words):
        seen = {}
        monkeypatch.setattr(
            Session, "show_sources", lambda session, sources: seen.update(seed=session.seed, work=session.work)
        )
        assert curate("score", "--target", "t", "--dry-run", "--quiet", *words)[0] == 0
        return seen["seed"], Path(seen["work"]).name

    assert seed() == (0, ".curate")
    assert seed("--config", "c.toml") == (1, "from-file")
    monkeypatch.setenv("CURATE_SEED", "2")
    assert seed("--config", "c.toml") == (2, "from-file")
    assert seed("--config", "c.toml", "--seed", 0) == (0, "from-file")  # also when equal to the default


def test_ctrl_c_exits_130_and_says_what_happens_next(curate, folders, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(scoring, "score_each", interrupted)
    code, _, err = curate("score", "--target", folders["target"])
    assert code == 130
    assert "the same command continues" in words_of(err)


def test_a_defect_is_one_line_without_debug(curate, folders, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("boom")

    monkeypatch.setattr(scoring, "score_each", broken)
    code, _, err = curate("score", "--target", folders["target"])
    assert (code, "Unexpected RuntimeError: boom" in words_of(err)) == (1, True)


def test_of_processes_that_work_together_the_first_speaks(curate, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert curate("encoders", "lite*")[:2] == (0, "")


def test_encoders_are_listed(curate):
    code, out, _ = curate("encoders", "lite*", "--json")
    assert code == 0
    document = json.loads(out)
    assert document["encoders"] == encoder_names("lite*")
    assert document["details"][0] == {"name": "lite0", "size": 128, "dim": 1280, "license": "Apache-2.0"}
    code, out, _ = curate("encoders")
    assert (code, out.split()[:8]) == (0, ["name", "size", "dim", "license", "lite0", "128", "1280", "Apache-2.0"])
    assert "color-texture" in out
    assert curate("encoders", "lite9*")[1] == "No encoder matches 'lite9*'.\n"


def test_named_flags_split_at_the_first_equals_sign():
    assert parse_named(["a=x#half=B"], "--pool") == {"a": "x#half=B"}


def test_random_numbers_do_not_touch_the_global_generators(curate, folders):
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    curate("score", "--target", folders["target"], "--quiet")
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


def test_a_run_that_lost_many_of_its_images_says_so(curate, folders):
    pools = ["--pool", f"like={folders['like']}"]
    assert curate("select", "--target", folders["target"], *pools, "--budget", 40, "--out", "chosen", "--quiet")[0] == 0
    for path in sorted(folders["target"].rglob("*.png"))[:8]:
        path.unlink()
    words = ["pretrain", "--selection", "chosen", "--samples", 80, "--out", "run", "--set", "size=32"]
    code, _, err = curate(*words)
    assert code == 4
    assert "8 of 40 selected images cannot be read (cannot be read: No such file" in err
    assert "8 of 40 selected images could not be read; the run trained on 32." in err


def test_a_selection_of_nothing_but_the_target_is_remarked_on(curate, folders):
    pools = ["--pool", f"like={folders['like']}"]
    _, out, _ = curate("select", "--target", folders["target"], *pools, "--budget", 10, "--out", "chosen", "--quiet")
    assert "All 10 chosen are the target's own training images; " in words_of(out)


def test_prices_caps_and_weights_are_said_on_the_command_line(curate, folders):
    target, like = f"{folders['target']}#label:label,cap:0", f"{folders['like']}#price:0.5,cap:12"
    words = ["select", "--target", target, "--pool", f"like={like}", "--pool", f"unlike={folders['unlike']}#price:2"]
    words += ["--budget", "money=10", "--method", "random", "--weight", "cat=3", "--out", "o", "--json", "--quiet"]
    code, out, err = curate(*words)
    assert code == 0, err
    document = json.loads(out)
    assert document["counts"].keys() <= {"like", "unlike"}
    assert document["counts"].get("like", 0) <= 12
    facts = document["facts"]
    assert facts["terms"] == {
        "target": {"cap": 0},
        "like": {"price": "0.5", "cap": 12},
        "unlike": {"price": "2"},
    }
    assert (facts["limits"], facts["weights"]) == ({"money": 10.0}, {"cat": 3.0})
    assert 8 < facts["spent"]["money"]["used"] <= 10


def test_terms_of_a_file_are_completed_by_those_of_an_address(curate, folders, tmp_path):
    (tmp_path / "c.toml").write_text(
        f'[target]\nuri = "{folders["target"]}"\ncap = 0\n[pools.like]\nuri = "{folders["like"]}"\nprice = 0.5\n'
        "[budget]\nmoney = 3\n"
    )
    words = ["select", "--config", "c.toml", "--method", "random", "--out", "o", "--json", "--quiet"]
    code, out, err = curate(*words)
    assert code == 0, err
    assert json.loads(out)["counts"] == {"like": 6}
    session = Session(Shared(config=tmp_path / "c.toml"), silent)
    assert session.terms(None, None) == {"target": Terms(cap=0), "like": Terms(price="0.5")}
    flags = [f"like={folders['like']}#cap:3"]
    assert session.terms(f"{folders['target']}#floor:2", flags) == {"target": Terms(floor=2), "like": Terms(cap=3)}


def test_a_dry_run_of_what_is_done_says_so(curate, folders):
    words = ["embed", folders["like"], "--out", "store", "--encoder", "color-texture", "--quiet"]
    assert "Sample of 40" in curate(*words, "--dry-run")[1]
    assert curate(*words)[0] == 0
    assert "store is complete: there is nothing to do." in curate(*words, "--dry-run")[1]


def test_several_targets_are_scored_at_once(curate, folders):
    words = ("--target", f"one={folders['target']}", "--target", f"two={folders['unlike']}")
    words = (*words, "--pool", f"like={folders['like']}", "--quiet")
    code, out, _ = curate("score", *words, "--json", "--out", "scored")
    document = json.loads(out)
    assert (code, document["schema"], sorted(document["targets"])) == (0, "curate.scores/1", ["one", "two"])
    alone = json.loads(curate("score", "--target", folders["target"], *words[4:], "--json")[1])
    assert document["targets"]["one"] == alone
    assert Path("scored/one/report.html").exists()
    assert Path("scored/two/score.json").exists()
    code, out, _ = curate("score", *words)
    assert code == 0
    assert "Index ±95% of every pool, by target." in out
    code, _, err = curate("score", "--target", folders["target"], *words[2:])
    assert (code, "found no name" in words_of(err)) == (2, True)


def test_a_second_encoder_judges_the_order(curate, folders, image_folder, pictures):
    third = image_folder(pictures(30, seed=11), "third")
    pools = [f"--pool={name}={folder}" for name, folder in (*folders.items(), ("third", third)) if name != "target"]
    code, out, _ = curate(
        "score", "--target", folders["target"], *pools, "--judge", "encoder_weights:pooled", "--quiet"
    )
    assert code == 0
    assert "encoder_weights:pooled orders the pools with a rank correlation of" in words_of(out)


def test_a_partner_is_scored_by_a_file_of_moments(curate):
    rng = np.random.default_rng(0)
    for name, shift in (("ours", 0.0), ("theirs", 0.2), ("far", 3.0)):
        np.save(f"{name}.npy", (rng.normal(size=(1200, 4)) + shift).astype(np.float32))
    code, out, _ = curate("moments", "theirs.npy", "--out", "theirs.moments", "--quiet")
    assert code == 0
    assert "Two that differ by one image reveal it" in words_of(out)
    pools = ("--pool", "theirs=theirs.moments", "--pool", "far=far.npy")
    code, out, _ = curate("score", "--target", "ours.npy", *pools, "--out", "scored", "--quiet", "--json")
    found = {pool["name"]: pool for pool in json.loads(out)["pools"]}
    assert (code, found["theirs"]["verdict"], found["far"]["verdict"]) == (0, "near", "far")
    assert "is a file of moments" in found["theirs"]["metrics"]["coverage"]["reason"]
    assert Path("scored/report.html").exists()
    np.save("few.npy", rng.normal(size=(100, 4)).astype(np.float32))
    code, _, err = curate("moments", "few.npy", "--out", "few.moments", "--quiet")
    assert (code, Path("few.moments").exists()) == (2, False)
    assert "50" in err
    code, _, err = curate("select", "--target", "ours.npy", *pools, "--budget", "10", "--out", "chosen", "--quiet")
    assert code == 2
    assert "is a file of moments: it holds no image and no embedding" in words_of(err)
    code, out, _ = curate("score", "--target", "ours.npy", *pools, "--dry-run", "--quiet", "--json")
    assert (code, json.loads(out)["sources"]["theirs"]["images"]) == (0, 1200)
    code, out, _ = curate("score", "--target", "theirs.moments", "--out", "profile", "--quiet")
    assert (code, "exact duplicates n/a" in words_of(out)) == (0, True)


def test_explanations_are_asked_for_by_name(curate, folders):
    words = ("score", "--target", folders["target"], "--pool", f"unlike={folders['unlike']}", "--quiet", "--json")
    code, out, _ = curate(*words, "--also", "memorized", "--also", "diversity,c2st", "--pool-size", "1000")
    document = json.loads(out)
    (pool,) = document["pools"]
    assert (code, sorted(pool["findings"])) == (0, ["delivery", "memorized", "parts"])
    assert "auc" in pool["metrics"]
    assert document["findings"]["diversity"]["at"] == 30
    code, _, err = curate(*words, "--also", "diverse")
    assert (code, "diversity" in err) == (2, True)


def test_flags_that_say_something_of_pools_need_one(curate, folders):
    for flag in ("--judge=color-texture", "--pool-size=9", "--fail-above=1", "--also=all"):
        code, _, err = curate("score", "--target", folders["target"], flag, "--quiet")
        assert (code, "there is none" in words_of(err)) == (2, True), flag


def test_one_target_may_have_a_name_and_no_name_leads_out_of_the_folder(curate, folders):
    pool = f"--pool=like={folders['like']}"
    assert curate("score", "--target", f"A={folders['target']}", pool, "--quiet")[0] == 0
    for name in ("..", ".", " "):
        words = ("--target", f"{name}={folders['target']}", "--target", f"b={folders['like']}", pool)
        assert curate("score", *words, "--out", "deep/in", "--quiet")[0] == 2, name


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("a-file", "is a file"),
        ("a-file/in", "a-file/in cannot be a folder: "),
        ("no-entry/in/it", "Cannot write no-entry/in/it: no permission to write to "),
        ("taken", "taken is not empty and holds no"),
    ],
)
@pytest.mark.parametrize("command", [["score"], ["select", "--budget", 20]])
def test_where_nothing_can_be_written_is_told_before_any_work(curate, folders, monkeypatch, command, place, said):
    Path("a-file").write_text("x", encoding="utf-8")
    for name in ("no-entry", "taken"):
        Path(name).mkdir()
    Path("taken/notes.txt").write_text("x", encoding="utf-8")
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "no-entry" not in str(path) and allowed(path, mode))
    pool = f"--pool=like={folders['like']}"
    code, _, err = curate(*command, "--target", folders["target"], pool, "--out", place, "--work", "none", "--quiet")
    assert code == (1 if place.startswith("no-entry") else 2)
    assert said in words_of(err)
    assert not Path("none").exists()


def test_an_encoder_does_not_judge_itself(curate, folders):
    pool = f"--pool=like={folders['like']}"
    code, _, err = curate("score", "--target", folders["target"], pool, "--judge", "color-texture", "--quiet")
    assert (code, "scores and judges itself" in words_of(err)) == (2, True)


def test_a_selection_is_judged_by_the_encoder_that_is_named(curate, folders):
    pool = f"--pool=like={folders['like']}"
    words = ["select", "--target", folders["target"], pool, "--budget", 20, "--quiet", "--method", "random"]
    words += ["--encoder", "color-texture"]
    code, _, err = curate(*words, "--judge", "color-texture", "--out", "o")
    assert (code, "color-texture selects and judges itself" in words_of(err)) == (2, True)
    assert curate(*words, "--judge", "lite9", "--out", "o")[0] == 2
    assert not Path("o").exists()
    assert not Path(".curate").exists()  # nothing was embedded
    code, out, _ = curate(*words, "--judge", "lite0@32", "--out", "o", "--json")
    judges = [judge["name"] for judge in json.loads(out)["comparison"]["judges"]]
    assert (code, judges) == (0, ["lite0@32"])
    code, out, _ = curate(*words, "--out", "o", "--json")  # in the same folder: judged again by those that stand in
    judges = [judge["name"] for judge in json.loads(out)["comparison"]["judges"]]
    assert (code, judges) == (0, ["color-texture", "random"])


def test_explain_tells_of_the_chosen_the_left_out_and_those_that_others_came_before(curate, folders):
    words = ["select", "--target", folders["target"], "--pool", f"like={folders['like']}", "--method", "random"]
    assert curate(*words, "--budget", "15", "--out", "chosen", "--quiet")[0] == 0
    chosen = Selection.open("chosen")
    source, key = (chosen.rows()[name][0].as_py() for name in ("source", "key"))
    code, out, _ = curate("explain", "chosen", f"{source}/{key}")
    assert code == 0
    assert f"{source}/{key} was chosen, rank 0: random: drawn from all candidates" in words_of(out)
    taken = {(s, k) for s, k in zip(chosen.rows()["source"].to_pylist(), chosen.rows()["key"].to_pylist(), strict=True)}
    gone = set(chosen.left_out["key"].to_pylist())
    files = (str(path.relative_to(folders["like"])) for path in Path(folders["like"]).rglob("*.png"))
    other = next(file for file in files if ("like", file) not in taken and file not in gone)
    code, out, _ = curate("explain", "chosen", f"like/{other}", "--json")
    assert code == 0
    assert json.loads(out)["reasons"] == [f"like/{other} was a candidate that others came before."]
    chosen.facts["stopped"] = {"at": 15, "reason": "Near images run out at about N = 15."}
    assert choosing._passed_over(chosen, f"like/{other}") == [
        f"like/{other} was a candidate whose turn did not come. Stopped at 15: Near images run out at about N = 15."
    ]
    (Path(folders["like"]) / other).write_bytes(b"no image")
    code, out, _ = curate("explain", "chosen", f"like/{other}", "--json")
    assert json.loads(out)["reasons"][0].startswith(f"like/{other} cannot be read, so it was no candidate: not a known")
    code, _, err = curate("explain", "chosen", "no/such.png")
    assert code == 2
    assert "No image 'no/such.png' in the sources of this selection (like, target)." in words_of(err)


def test_what_augmentations_would_destroy(curate, folders):
    words = ["augmentations", "--labeled", f"mine={folders['target']}", "--quiet"]
    code, out, _ = curate(*words, "--out", "audit", "--json")
    document = json.loads(out)
    assert (code, document["schema"]) == (0, "curate.augmentations/1")
    (found,) = document["sets"]
    assert (found["name"], found["n"], found["encoder"]) == ("mine", 40, "color-texture")
    assert json.loads(Path("audit/augmentations.json").read_text()) == document
    code, out, _ = curate(*words, "--dry-run")
    assert "mine: 40 images" in out
    assert curate("augmentations")[0] == 2
