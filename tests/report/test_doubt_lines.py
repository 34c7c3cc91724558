"""Doubts as lines: three a skill at most, shared ones together, and each with its command."""

from skillscale.laws.skills.doubts import Doubt
from skillscale.report.doubts import doubt_lines, doubts_as_dict

SOURCE = "--study main"


def doubt(skill, text, command="suggest"):
    return Doubt(skill=skill, text=text, command=command)


def test_skills_share_the_line_of_a_doubt():
    doubts = {
        "code": [doubt("code", "Residuals depend on N and D (p = 0.01). Compare laws.")],
        "prose": [doubt("prose", "Residuals depend on N and D (p = 0.04). Compare laws.")],
    }
    assert doubt_lines(doubts, SOURCE) == [
        "code, prose: Residuals depend on N and D. Compare laws. Run: skillscale suggest --study main"
    ]


def test_three_doubts_of_a_skill_are_shown_and_the_others_counted():
    lines = doubt_lines({"code": [doubt("code", f"Doubt {k}.") for k in range(5)]}, SOURCE)
    assert [line.split(".")[0] for line in lines[:3]] == ["code: Doubt 0", "code: Doubt 1", "code: Doubt 2"]
    assert lines[3:] == ["2 more doubts: see --json"]
    lines = doubt_lines({f"skill {k}": [doubt("", f"Doubt {k}.")] for k in range(9)}, SOURCE, limit=8)
    assert lines[8:] == ["1 more doubt: see --json"]


def test_no_command_is_given_where_the_runs_are_unknown():
    doubts = {"code": [doubt("code", "Add runs.")]}
    assert doubt_lines(doubts, "") == ["code: Add runs."]
    assert doubts_as_dict(doubts["code"], "") == [{"text": "Add runs.", "command": None}]
    assert doubts_as_dict(doubts["code"], SOURCE)[0]["command"] == "skillscale suggest --study main"
