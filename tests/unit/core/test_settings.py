import pytest

from yunmo.core.errors import SettingsError
from yunmo.core.settings import Settings, load_settings


def test_the_environment_goes_over_the_file_and_both_over_defaults() -> None:
    settings = load_settings("port: 9000\nworkers: 3", {"YUNMO_PORT": "9001", "PATH": "/bin", "YUNMO_HOME": "/x"})
    assert (settings.port, settings.workers, settings.host) == (9001, 3, "127.0.0.1")


def test_no_sources_give_the_defaults_which_listen_on_loopback_only() -> None:
    assert load_settings(None, {}) == Settings()
    assert load_settings("", {}) == Settings()
    assert Settings().host == "127.0.0.1"


@pytest.mark.parametrize(
    ("text", "environment", "message"),
    [
        ("prot: 9000", {}, "Did you mean 'port'"),
        ("port: high", {}, "port"),
        ("port: 70000", {}, "port"),
        ("[", {}, "not valid YAML"),
        ("- 1", {}, "mapping"),
        (None, {"YUNMO_PROT": "1"}, "YUNMO_PROT.*Known: host, port"),
        (None, {"YUNMO_PORT": "x"}, "port"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(text: str | None, environment: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_settings(text, environment)
