"""Environment over file over default, and nothing unknown."""

from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from agentq.core.errors import InvalidFile, InvalidSetting
from agentq.settings import Settings


def load(folder: Path, text: str | None = None, **environ: str) -> Settings:
    if text is not None:
        (folder / "agentq.toml").write_text(text)
    return Settings.load(environ=environ, folder=folder)


def test_defaults_are_the_documented_ones(tmp_path: Path) -> None:
    settings = load(tmp_path)
    assert settings == Settings()
    assert settings.lease == timedelta(seconds=3)
    assert settings.renew == timedelta(milliseconds=500)
    assert settings.result_retention == timedelta(days=7)
    assert (settings.inline_limit, settings.result_limit) == (65_536, 16_777_216)
    assert (settings.step_soft_limit, settings.step_hard_grace) == (timedelta(minutes=10), timedelta(seconds=30))
    assert settings.linger == timedelta(milliseconds=500)
    assert settings.redis_url is None


def test_environment_goes_over_file_and_file_over_default(tmp_path: Path) -> None:
    settings = load(tmp_path, 'linger = "2s"\nprefix = "file"\n', AGENTQ_PREFIX="env", AGENTQ_LOW_SHARE="4")
    assert (settings.linger, settings.prefix, settings.low_share) == (timedelta(seconds=2), "env", 4)
    assert settings.tick == timedelta(milliseconds=250)


def test_an_empty_variable_counts_as_none(tmp_path: Path) -> None:
    assert load(tmp_path, 'prefix = "file"', AGENTQ_PREFIX="", AGENTQ_REDIS_URL="", REDIS_URL="").prefix == "file"


def test_redis_url_is_taken_from_the_usual_variable_too(tmp_path: Path) -> None:
    assert load(tmp_path, REDIS_URL="redis://a").redis_url == SecretStr("redis://a")
    both = load(tmp_path, REDIS_URL="redis://a", AGENTQ_REDIS_URL="redis://b")
    assert both.redis_url == SecretStr("redis://b")
    assert load(tmp_path, REDIS_URL="http://someone/elses", AGENTQ_REDIS_URL="unix:///s").redis_url is not None
    with pytest.raises(InvalidSetting, match="Setting REDIS_URL is wrong"):
        load(tmp_path, REDIS_URL="http://a")


@pytest.mark.parametrize("url", ["redis://:hunter2@[bad", "redis://:hunter2/x@h:1", "redis://h:port"])
def test_a_url_that_cannot_be_read_is_refused_without_its_password(tmp_path: Path, url: str) -> None:
    with pytest.raises(InvalidSetting, match="host or port cannot be read") as refused:
        load(tmp_path, AGENTQ_REDIS_URL=url)
    assert "hunter2" not in str(refused.value)


def test_no_secret_is_shown(tmp_path: Path) -> None:
    settings = load(tmp_path, AGENTQ_REDIS_URL="redis://:hunter2@h", AGENTQ_MODEL_URL="http://u:hunter2@h",
                    AGENTQ_MODEL_KEY="hunter2")  # fmt: skip
    assert "hunter2" not in f"{settings!r} {settings} {settings.model_dump(mode='json')}"
    for text, environ in ((None, {"AGENTQ_REDIS_URL": "http://:hunter2@h"}), ('redis_url = "http://:hunter2@h"', {})):
        with pytest.raises((InvalidSetting, InvalidFile)) as refused:
            load(tmp_path, text, **environ)
        assert "hunter2" not in str(refused.value)
        assert "must begin with" in str(refused.value)


def test_an_unknown_variable_is_refused_with_the_near_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=r'AGENTQ_LEESE .* Did you mean "AGENTQ_LEASE"'):
        load(tmp_path, AGENTQ_LEESE="3")
    with pytest.raises(InvalidSetting, match='Did you mean "AGENTQ_CONFIG"'):
        load(tmp_path, AGENTQ_CONFG="x")


def test_other_programs_variables_are_left_alone(tmp_path: Path) -> None:
    assert load(tmp_path, LEASE="x", AGENTQ="x", AGENTQ_DEV_X="x", AGENTQ_TEST_X="x", PATH="/bin") == Settings()


def test_a_wrong_variable_is_told_with_its_value(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting) as refused:
        load(tmp_path, AGENTQ_LOW_SHARE="1")
    assert str(refused.value).startswith("environment: Setting AGENTQ_LOW_SHARE is wrong")
    assert "greater than or equal to 2" in str(refused.value)
    assert "'1'" in str(refused.value)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("\nlese = 3\n", 2, 'Did you mean "lease"'),
        ("lease = 'soon'\n", 1, "soon"),
        ("app = 3\n", 1, "valid string"),
        ("a =\n", 1, "not TOML"),
        ("[lease]\nx = 1\n", 1, "lease"),
        ("prefix = 'a b'\n", 1, "given: 'a b'"),
    ],
)
def test_a_wrong_file_is_told_with_its_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    with pytest.raises(InvalidFile) as refused:
        load(tmp_path, text)
    assert refused.value.line == line
    assert words in str(refused.value)


def test_renewal_follows_a_shorter_lease(tmp_path: Path) -> None:
    assert load(tmp_path, AGENTQ_LEASE="400ms").renew == timedelta(milliseconds=100)
    assert load(tmp_path, AGENTQ_LEASE="1m").renew == timedelta(milliseconds=500)


def test_a_renewal_too_slow_for_the_lease_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"renew is 2 s, but must be at most a third of lease \(3 s\)"):
        load(tmp_path, AGENTQ_RENEW="2")
    assert load(tmp_path, "renew = 2", AGENTQ_LEASE="6").renew == timedelta(seconds=2)


def test_the_file_may_stand_in_config_or_be_named(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "agentq.toml").write_text('prefix = "config"')
    assert load(tmp_path).prefix == "config"
    assert load(tmp_path, 'prefix = "own"').prefix == "own"
    (tmp_path / "named.toml").write_text('prefix = "named"')
    assert load(tmp_path, AGENTQ_CONFIG="named.toml").prefix == "named"
    with pytest.raises(InvalidFile, match=r"absent\.toml: it cannot be read"):
        load(tmp_path, AGENTQ_CONFIG="absent.toml")


def test_paths_of_a_file_count_from_its_folder_and_variables_from_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "agentq.toml").write_text('pools_file = "p.toml"\nstate_dir = "/abs"')
    settings = load(tmp_path, AGENTQ_TOOLS_ROOT="texts")
    assert settings.pools_file == tmp_path / "config" / "p.toml"
    assert settings.state_dir == Path("/abs")
    assert settings.tools_root == tmp_path / "texts"


def test_files_beside_the_settings_are_found_if_they_are_there(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "pools.toml").write_text("")
    assert load(tmp_path).pools_file == tmp_path / "config" / "pools.toml"
    assert load(tmp_path, "").pools_file is None
    (tmp_path / "pools.toml").write_text("")
    assert load(tmp_path, "").pools_file == tmp_path / "pools.toml"


def test_the_process_environment_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGENTQ_PREFIX", "mine")
    assert Settings.load().prefix == "mine"


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({}, None),
        ({"SENTRY_DSN": "https://k@o1.example/2"}, "https://k@o1.example/2"),
        ({"SENTRY_DSN": "https://k@o1.example/2", "AGENTQ_SENTRY_DSN": "off"}, "off"),
    ],
)
def test_sentrys_own_variable_counts_where_ours_is_not_set(
    environ: dict[str, str], found: str | None, tmp_path: Path
) -> None:
    settings = Settings.load(environ=environ, folder=tmp_path)
    assert (settings.sentry_dsn.get_secret_value() if settings.sentry_dsn is not None else None) == found
    assert settings.tells_sentry is (found != "off")


def test_an_address_that_is_none_of_sentrys_is_refused_without_being_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="https://KEY@HOST/ID") as caught:
        Settings.load(environ={"AGENTQ_SENTRY_DSN": "https://password.example"}, folder=tmp_path)
    assert "password" not in str(caught.value)
