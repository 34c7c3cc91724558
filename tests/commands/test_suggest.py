"""The next points for people who train elsewhere: from a table, with why; nothing is trained."""

import csv
import json

import pytest

from skillscale import cli
from skillscale.config import load
from skillscale.design.proposal import Proposal, Purpose, Recommendation
from skillscale.sampler.study import StudyContext, build_problem, recommendation_text, to_points


def loss(n, d):
    return 1.7 + 400 * n**-0.34 + 410 * d**-0.28


def table(folder, rows=None, mixes=False):
    rows = rows or [(n, d) for n in (1e7, 3e7, 1e8) for d in (3e8, 1e9, 3e9)]
    lines = ["n,d,code,prose,a,b"]
    for at, (n, d) in enumerate(rows):
        share = (0.5, 0.25)[at % 2] if mixes else 0.5
        lines.append(f"{n},{d},{loss(n, d)},{loss(n, d) + 0.1},{share},{1 - share}")
    (folder / "runs.csv").write_text("\n".join(lines))
    (folder / "map.yaml").write_text(
        "n_params: n\nn_tokens: d\nskills: {code: code, prose: prose}\nmix: {a: a, b: b}\n"
    )
    return ["suggest", "--table", str(folder / "runs.csv"), "--columns", str(folder / "map.yaml")]


def answer(words, capsys):
    code = cli.main([*words, "--json"])
    captured = capsys.readouterr()
    return code, json.loads(captured.out) if captured.out else None, captured.err


def test_points_are_within_the_limits_and_no_larger_than_the_largest_run(tmp_path, capsys):
    code, told, _ = answer([*table(tmp_path), "--count", "6", "--sample.ratio", "[5, 50]"], capsys)
    assert (code, len(told["points"]), told["runs"]) == (0, 6, 9)
    for one in told["points"]:
        assert one["flops"] <= 6 * 1e8 * 3e9 * 1.001
        assert 4.99 < one["n_tokens"] / one["n_params"] < 50.01
        assert one["mix"] == {"a": 0.5, "b": 0.5}
        assert one["cost"] > one["flops"]
    assert len({(one["n_params"], one["n_tokens"], one["seed"]) for one in told["points"]}) == 6


def test_the_text_and_the_file_say_what_to_run_and_why(tmp_path, capsys):
    path = tmp_path / "next.csv"
    assert cli.main([*table(tmp_path), "--file", str(path), "--count", "3"]) == 0
    text = capsys.readouterr().out
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert len(rows) == 3
    for row in rows:
        assert f"{int(row['n']):,}" in text
        assert row["purpose"] in text
        assert (float(row["a"]), row["code"]) == (0.5, "")
    assert "an overhead of 1.8e16 FLOP a run" in text


def test_points_written_in_the_columns_of_the_table_are_under_way_until_their_losses_are_known(tmp_path, capsys):
    words = table(tmp_path)
    rows = list(csv.DictReader((tmp_path / "runs.csv").read_text().splitlines()))
    for row in rows:
        row |= {"n": float(row["n"]) / 1e6, "id": row["n"] + row["d"], "seed": 0, "mass": "small"}
    lines = (tmp_path / "map.yaml").read_text().splitlines()
    more = ["units: {n_params: 1e6}", "run: id", "seed: seed", "where: {mass: small}"]
    (tmp_path / "map.yaml").write_text("\n".join([*lines, *more]))

    def asked(found):
        names = list(dict.fromkeys(name for row in found for name in row))
        with (tmp_path / "runs.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(found)
        _, told, log = answer([*words, "--count", "3", "--file", str(tmp_path / "next.csv")], capsys)
        assert ("3 runs have no loss of code, prose yet" in log) == any(one.get("code") == "" for one in found)
        return told, list(csv.DictReader((tmp_path / "next.csv").read_text().splitlines()))

    first, points = asked(rows)
    assert [1e6 * float(one["n"]) for one in points] == pytest.approx([one["n_params"] for one in first["points"]])
    waiting, _ = asked([*rows, *points])
    assert waiting["runs"] == 12
    assert waiting["targets"] == first["targets"], "nothing more is known"
    assert min(one["seed"] for one in waiting["points"]) == 4
    made = [(one["n_params"], one["n_tokens"]) for told in (first, waiting) for one in told["points"]]
    assert max(made.count(one) for one in made) <= 3, "those under way count as made"
    for one in points:
        one["code"] = loss(1e6 * float(one["n"]), float(one["d"]))
        one["prose"] = one["code"] + 0.1
    done, _ = asked([*rows, *points])
    assert done["targets"] != first["targets"]


def test_a_ladder_of_sizes_may_be_written_as_people_write_numbers(tmp_path, capsys):
    code, told, _ = answer([*table(tmp_path), "--sample.sizes", "[2e7, 5e7]"], capsys)
    assert (code, {one["n_params"] for one in told["points"]} <= {20_000_000, 50_000_000}) == (0, True)


def test_mixes_of_the_table_are_proposed_or_those_that_are_asked_for(tmp_path, capsys):
    _, told, _ = answer([*table(tmp_path, mixes=True), "--count", "8"], capsys)
    assert {one["mix"]["a"] for one in told["points"]} == {0.5, 0.25}
    words = [*table(tmp_path, mixes=True), "--mixes", "a=.25,b=.75"]
    _, told, log = answer(words, capsys)
    assert {one["mix"]["a"] for one in told["points"]} == {0.25}
    assert "5 runs are on other mixes" in log


def named_table(folder):
    """Nine runs on each of two mixes that have names alone, the second 20 times as dear."""
    words = table(folder, rows=[(n, d) for k in (1, 20) for n in (1e7, 3e7, 1e8) for d in (3e8 * k, 1e9 * k, 3e9 * k)])
    lines = (folder / "runs.csv").read_text().splitlines()
    named = [f"{line},{'web' if at < 9 else 'books'}" for at, line in enumerate(lines[1:])]
    (folder / "runs.csv").write_text("\n".join([f"{lines[0]},corpus", *named]))
    columns = (folder / "map.yaml").read_text().replace("mix: {a: a, b: b}", "mix: corpus")
    (folder / "map.yaml").write_text(columns)
    return words


def test_of_mixes_that_have_names_alone_one_is_asked_about(tmp_path, capsys):
    words = named_table(tmp_path)
    code, _, log = answer(words, capsys)
    assert (code, "2 mixes without shares (books, web)" in log) == (2, True), log
    assert "Choose one with --mix NAME" in log
    path = tmp_path / "next.csv"
    code, told, log = answer([*words, "--mix", "web", "--file", str(path)], capsys)
    assert (code, told["runs"], "9 runs are on other mixes than web" in log) == (0, 9, True), log
    assert max(one["flops"] for one in told["points"]) <= 6 * 1e8 * 3e9 * 1.001, "the largest run of that mix"
    assert {row["corpus"] for row in csv.DictReader(path.read_text().splitlines())} == {"web"}
    code, _, log = answer([*words, "--mix", "wob"], capsys)
    assert (code, "no run has the mix 'wob' (did you mean web?)" in log) == (2, True), log
    code, _, log = answer([*table(tmp_path, mixes=True), "--mix", "web"], capsys)
    assert (code, "this table has shares of a, b" in log) == (2, True), log


def told_of(gains, alike):
    """What is said of a run for each gain, the first ``alike`` of them the same but for the seed."""
    order = build_problem(load().sample, StudyContext(skills=("code",), flops_max=1e20))
    proposals = tuple(
        Proposal(N=1e8 * (1 + max(at - alike + 1, 0)), D=2e9, cost=2e18, purpose=Purpose.PLAN, narrowing={"x": gain})
        for at, gain in enumerate(gains)
    )
    recommendation = Recommendation(proposals=proposals, flops_to_halve=3e22)
    return recommendation_text(recommendation, to_points(proposals, order, 7), order).splitlines()


def test_runs_that_differ_in_their_seed_alone_are_one_row():
    rows = [line.split() for line in told_of([0.02] * 4, alike=3) if "plan: " in line]
    assert [row[1:2] + row[4:6] for row in rows] == [["100,000,000", "x3", "7,8,9"], ["200,000,000", "x1", "10"]]
    rows = [line.split() for line in told_of([0.02] * 2, alike=1) if "plan: " in line]
    assert [row[4] for row in rows] == ["7", "8"], "no such column where no two are alike"


@pytest.mark.parametrize(("gains", "first"), [([0.009, 0.001], True), ([0.001, 0.011], False)])
def test_that_no_run_tells_much_is_said_before_them(gains, first):
    lines = told_of(gains, alike=1)
    assert lines[0].startswith("No single run helps much") == first
    halving = [
        at for at, line in enumerate(lines) if "Halving the widest interval should take about 3e22 FLOP." in line
    ]
    assert halving == [0 if first else len(lines) - 1]


def test_the_one_mix_that_is_asked_about_is_told(tmp_path, capsys):
    assert cli.main(table(tmp_path, mixes=True)) == 0
    assert "Targets are for the first of 2 mixes (a=0.5,b=0.5)." in capsys.readouterr().out
    assert cli.main(table(tmp_path)) == 0
    assert "Targets are for" not in capsys.readouterr().out


def test_runs_at_one_size_are_a_beginning_too(tmp_path, capsys):
    code, told, _ = answer(table(tmp_path, rows=[(1e7, d) for d in (1e8, 3e8, 1e9)]), capsys)
    assert (code, len(told["points"])) == (0, 4)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--target_skills", "cod"], "did you mean code?"),
        (["--target_flops", "1e10"], "below the smallest run"),
        (["--budget", "1"], "below the cheapest run"),
        (["--sample.n_params", "[1, 2]"], "the limits allow no run"),
        (["--mixes", "a=.5,c=.5"], "no category: 'c'"),
    ],
)
def test_what_can_not_be_asked_is_refused(tmp_path, capsys, more, says):
    code, _, log = answer([*table(tmp_path), *more], capsys)
    assert (code, says in log) == (2, True), log


def test_a_skill_that_no_run_has_measured_is_not_one(tmp_path, capsys):
    words = table(tmp_path)
    text = (tmp_path / "runs.csv").read_text().splitlines()
    (tmp_path / "runs.csv").write_text("\n".join([text[0] + ",maths", *(f"{line}," for line in text[1:])]))
    columns = (tmp_path / "map.yaml").read_text().replace("prose: prose}", "prose: prose, maths: maths}")
    (tmp_path / "map.yaml").write_text(columns)
    code, _, log = answer([*words, "--target_skills", "maths"], capsys)
    assert (code, "no run measures the skill 'maths'" in log) == (2, True), log
