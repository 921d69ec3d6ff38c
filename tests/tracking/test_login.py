from __future__ import annotations

import pytest

from potstill.errors import UserError
from potstill.tracking.login import is_logged_in, resolve_mode


@pytest.fixture
def netrc(tmp_path):
    path = tmp_path / "login"
    path.write_text("machine api.wandb.ai login user password " + "0" * 40 + "\n")
    return str(path)


def test_nobody_is_asked_for_a_key_where_there_is_no_login(tmp_path):
    assert resolve_mode("auto", {"NETRC": str(tmp_path / "absent")}) == "offline"


def test_a_login_in_the_netrc_file_or_a_key_means_online(netrc):
    assert resolve_mode("auto", {"NETRC": netrc}) == "online"
    assert resolve_mode("auto", {"NETRC": "/absent", "WANDB_API_KEY": "0" * 40}) == "online"


def test_a_login_at_another_server_is_no_login_here(netrc):
    assert not is_logged_in({"NETRC": netrc, "WANDB_BASE_URL": "https://wandb.example.org"})


def test_a_broken_netrc_file_does_not_stop_a_run(tmp_path):
    (tmp_path / "broken").write_text("machine\n")
    assert not is_logged_in({"NETRC": str(tmp_path / "broken")})


@pytest.mark.parametrize(
    ("variable", "mode"), [("disabled", "disabled"), ("offline", "offline"), ("dryrun", "offline")]
)
def test_the_environments_mode_beats_a_login(netrc, variable, mode):
    assert resolve_mode("auto", {"NETRC": netrc, "WANDB_MODE": variable}) == mode


def test_a_mode_asked_for_beats_the_environment():
    assert resolve_mode("offline", {"WANDB_MODE": "online"}) == "offline"


def test_a_misspelt_mode_is_refused_with_the_nearest():
    with pytest.raises(UserError, match=r"logger\.mode='ofline'[\s\S]*Nearest: 'offline'"):
        resolve_mode("ofline", {})
