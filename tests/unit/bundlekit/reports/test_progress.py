import importlib
import sys
import types

import ignite.handlers
import pytest
from ignite.engine import Engine

from bundlekit.reports import progress
from bundlekit.reports.progress import ProgressBar, StatsHandler


@pytest.fixture
def process(monkeypatch):
    """Makes this process the one of the given number among two."""

    def set_number(number):
        monkeypatch.setenv("RANK", str(number))
        monkeypatch.setenv("WORLD_SIZE", "2")

    return set_number


def run(handler):
    engine = Engine(lambda engine, batch: batch)
    handler.attach(engine)
    engine.run(range(3), max_epochs=1)


def test_the_main_process_shows_the_bar(process, capfd):
    process(0)
    run(ProgressBar("images"))
    assert "images" in (shown := capfd.readouterr().err)
    assert shown.rstrip("\n").split("\r")[-1].startswith("images: [3/3] 100%")  # full, and left on the screen
    assert shown.endswith("\n")


def test_the_others_show_none(process, capfd):
    process(1)
    run(ProgressBar("images"))
    assert capfd.readouterr().err == ""


def test_options_reach_the_bar(capfd):
    run(ProgressBar(desc="images", persist=False, bar_format="{desc} {n}", disable=False))
    assert capfd.readouterr().err.split("\r")[-1].strip() == ""  # a bar that does not persist is wiped out


def test_drawn_once_a_second_by_default():
    assert ProgressBar("images").tqdm_kwargs == {"desc": "images", "mininterval": 1.0}


@pytest.mark.parametrize(("number", "epochs"), [(0, [1]), (1, [])])
def test_only_the_main_process_logs(process, number, epochs):
    process(number)
    logged = []
    run(StatsHandler(iteration_log=False, epoch_print_logger=lambda engine: logged.append(engine.state.epoch)))
    assert logged == epochs


def test_a_wrong_number_of_the_process_is_an_error(process):
    process("first")
    with pytest.raises(ValueError, match="RANK"):
        ProgressBar("images").attach(Engine(lambda engine, batch: batch))


def test_older_ignite_has_the_bar_in_contrib(monkeypatch):
    older = type("OlderBar", (), {})
    contrib = types.SimpleNamespace(handlers=types.SimpleNamespace(ProgressBar=older))
    monkeypatch.delattr(ignite.handlers, "ProgressBar")
    monkeypatch.setitem(sys.modules, "ignite.contrib", contrib)
    monkeypatch.setitem(sys.modules, "ignite.contrib.handlers", contrib.handlers)
    try:
        assert importlib.reload(progress).ProgressBar.__mro__[1] is older
    finally:
        monkeypatch.undo()
        importlib.reload(progress)
