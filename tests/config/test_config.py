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


def test_a_study_names_its_data_and_skills_and_the_command_may_name_others():
    assert config.load(study="large").data.name == "large"
    assert config.load(study="skills-night").skills.name == "splits"
    assert config.load(study="skills-night", skills="embedded").skills.name == "embedded"


def test_mixes_are_made_by_multiplying_one_category_and_dividing_by_the_sum():
    """The thirteen of Roberts et al. 2025: the base comes once, though three factors of 1 name it."""
    mixes = config.load(
        overrides={
            "study.mixes": "[{knowledge: .58, code: .2, prose: .22}]",
            "study.mix_multipliers": "{knowledge: [.2, 1, 2, 3, 4], code: [.5, 1, 2, 3, 4, 18], prose: [2, 3, 4]}",
        }
    ).study.mix_values
    assert len(mixes) == 13
    assert dict(mixes[0].shares) == {"knowledge": 0.58, "code": 0.2, "prose": 0.22}
    assert mixes[1].shares["knowledge"] == pytest.approx(0.2 * 0.58 / (0.2 * 0.58 + 0.42))
    assert mixes[1].shares["code"] / mixes[1].shares["prose"] == pytest.approx(0.2 / 0.22)
    with pytest.raises(InputError, match="poetry can't be multiplied"):
        _ = config.load(overrides={"study.mix_multipliers": "{poetry: [2]}"})


def test_a_folder_of_ones_own_comes_before_the_shipped_one(tmp_path, monkeypatch):
    (tmp_path / "study").mkdir()
    shipped = config.conf_folder()
    train = (shipped / "train.yaml").read_text().replace("clip_norm: 1.0", "clip_norm: 0.25")
    (tmp_path / "train.yaml").write_text(train)
    study = (shipped / "study" / "main.yaml").read_text().replace("name: main", "name: mine")
    (tmp_path / "study" / "mine.yaml").write_text(study)
    assert not config.is_shipped("study", "mine")
    monkeypatch.setenv("SKILLSCALE_CONF", str(tmp_path))
    settings = config.load(study="mine")
    assert (settings.study.name, settings.train.clip_norm) == ("mine", 0.25)
    assert settings.data == config.load(study="main").data, "what the folder lacks is the shipped one's"
    with pytest.raises(InputError, match=r"no study named 'their'.* main, .*mine"):
        config.load(study="their")


def test_a_folder_of_settings_that_is_not_there_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("SKILLSCALE_CONF", str(tmp_path / "none"))
    with pytest.raises(InputError, match="SKILLSCALE_CONF must name a folder"):
        config.load()


def test_hashes_are_those_of_version_0_1():
    assert config.load().hash == "b6f29550c0c0ddcb", "renamed settings must keep their stored names in measured_dict"
    branching = config.load(overrides={"train.schedule": "wsd"})
    assert branching.hash == "ec8869c4c4471d73"
    assert branching.train.arithmetic["schedule"] == "trunk"
