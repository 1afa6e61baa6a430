"""The systemd units that are shipped."""

import configparser
import re
from pathlib import Path

import pytest

import ontick

UNITS = sorted((Path(ontick.__file__).parent / "configs" / "systemd").glob("*.service"))


def test_there_are_units():
    assert {path.name for path in UNITS} == {"ontick-drive.service", "ontick-serve.service"}


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_token_in_an_environment_file_is_one_that_the_command_takes(path):
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # names as they are written
    unit.read_string(path.read_text())
    service = unit["Service"]
    [named] = set(re.findall(r"\w+_TOKEN", path.read_text()))
    assert named == "ONTICK_TOKEN"
    assert ("EnvironmentFile" in service) == (f"--token-env {named}" in service["ExecStart"])
