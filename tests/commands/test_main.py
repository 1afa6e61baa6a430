import subprocess
import sys

import pytest

from ontick import __version__
from ontick.commands import VERBS, main


def ontick(*arguments):
    return subprocess.run([sys.executable, "-m", "ontick", *arguments], capture_output=True, text=True)


def test_python_m_ontick_is_the_command():
    assert ontick("--version").stdout.strip() == f"ontick {__version__}"
    shown = ontick("--help")
    assert shown.returncode == 0 and all(verb in shown.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb, capsys):
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    assert ended.value.code == 0 and "--" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["evalute"], ["evaluate"], ["demos", "--task"], ["train", "--nonsense"]])
def test_bad_usage_is_one_line_and_exit_code_2(arguments, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("ontick: ")
