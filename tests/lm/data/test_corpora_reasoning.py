"""Answers are right, varied, and new to the evaluation."""

import re
from collections import Counter
from datetime import datetime

from skillscale.lm.data.corpora import reasoning
from skillscale.lm.data.corpora.contamination import find_prompts


def solved(question: str) -> str | None:
    """An answer found in another way than the maker's, where that is simple."""
    if match := re.search(r"(?:What is|Compute|Evaluate|How much is) ([-+*()\d ]+)[?.]$", question):
        return str(eval(match[1]))  # arithmetic of our own making
    if match := re.match(r"Sort: (.*)\.$", question):
        return ", ".join(sorted(match[1].split(", "), key=lambda word: (int(word) if word.isdigit() else 0, word)))
    if match := re.match(r"How many days are there from (.*) to (.*)\?", question):
        first, last = (datetime.strptime(day, "%d %B %Y").date() for day in match.groups())  # noqa: DTZ007
        return str((last - first).days)
    if match := re.match(r"What is the remainder of (\d+) divided by (\d+)\?", question):
        return str(int(match[1]) % int(match[2]))
    if match := re.match(r"If (.*), is (.*) true\?", question):
        values = dict(re.findall(r"(\w) is (true|false)", match[1]))
        text = re.sub(r"\b([p-t])\b", lambda variable: str(values[variable[1]] == "true"), match[2])
        text = re.sub(r"xor not (\w+)", r"!= (not \1)", text).replace("xor", "!=")
        return "yes" if eval(text) else "no"  # a formula of our own making
    return None


def test_answers_are_right() -> None:
    checked: Counter[str] = Counter()
    for kind, task, _ in reasoning.draw_tasks("check", 3_000):
        expected = solved(task.question)
        if expected is not None:
            assert task.answer == expected, task
            checked[kind] += 1
        if kind in ("arithmetic", "story", "shopping", "expression") and task.steps:
            assert task.steps.split(" = ")[-1] == task.answer.removesuffix(" dollars"), task
            for formula, value in re.findall(r"([\d +*/-]+) = (\d+)", task.steps):
                assert eval(formula) == int(value), task
    assert {"expression", "sorting", "calendar", "remainder", "logic"} <= set(checked)


def test_reasoning_is_varied_and_its_questions_are_new() -> None:
    corpus = reasoning.from_counts(3_000, validation=50, items=600)
    questions = Counter(document.text.split("\n")[0] for document in corpus.train)
    assert len(questions) > 2_700
    prompts = find_prompts(document.text for document in corpus.train)
    items = corpus.sets["reasoning_qa"]
    counts = corpus.dropped["reasoning_qa"]
    assert not prompts & {item.prompt for item in items}
    assert counts["checked"] - counts["dropped"] == len(items) > 450
    assert {str(item.meta["task"]) for item in items} == set(reasoning.MAKERS)
    with_steps = [document for document in corpus.train if "\nSteps: " in document.text]
    assert 0.1 < len(with_steps) / len(corpus.train) < 0.33
    assert find_prompts([with_steps[0].text]), "a question shown with steps counts as asked"
