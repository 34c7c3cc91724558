"""Settings: read, overridden, refused with the cure."""

import pytest

from skillscale import config
from skillscale.errors import InputError

REFUSED = {
    "train.lr": ("1", "unknown setting train.lr"),
    "trian.clip_norm": ("1", "did you mean train"),
    "train.clip_norm": ("-1", "greater than 0, but it is -1"),
    "model.context": ("wide", "valid integer"),
    "study.mixes": ("[{code: 0.6, prose: 0.6}]", "must sum to 1"),
    "study.budgets": ("[-1.0e+9]", "greater than 0"),
    "study.aggregate": ("{val/code: 0}", "not all 0"),
    "study.seeds": ("[1, 2]", "one a budget"),
    "data.vocab_size": ("[unclosed", "no YAML value"),
}


@pytest.mark.parametrize(("key", "given"), REFUSED.items(), ids=list(REFUSED))
def test_a_bad_setting_is_refused_with_its_name_or_value(key, given):
    value, message = given
    with pytest.raises(InputError) as caught:
        config.load(overrides={key: value})
    assert message in str(caught.value)


def test_a_mix_that_names_no_category_is_told_those_there_are():
    with pytest.raises(InputError, match="knowledge, code, prose, reasoning"):
        config.load(overrides={"study.mixes": "[{poetry: 1.0}]"})


def test_an_override_reaches_the_value_and_the_hash_but_only_of_what_is_measured():
    plain, other = config.load(), config.load(overrides={"train.clip_norm": "0.5"})
    assert other.train.clip_norm == 0.5
    assert other.hash != plain.hash
    assert config.load(overrides={"train.threads": "7", "study.sizes": "9"}).hash == plain.hash


def test_resolved_settings_read_back_equal():
    for name in ("embedded", "large"):
        settings = config.load(data=name, skills=name, study="main" if name == "embedded" else "large")
        assert config.resolve(settings.as_dict()) == settings


def test_a_file_that_is_no_mapping_is_refused(tmp_path):
    (tmp_path / "study.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="can't be read as YAML"):
        config.load(study=str(tmp_path / "study.yaml"))


def test_a_skill_that_would_take_anothers_column_is_refused_before_anything_is_trained():
    for name in ("aggregate", "N", "mix/code"):
        with pytest.raises(InputError, match=f"'{name}' can't name a skill"):
            config.SkillConfig(name=name, hypothesis=("val/code",))
