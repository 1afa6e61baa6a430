"""Sessions: what is drawn comes to every sink in order; on the clock a period is never left out, and what is late is a
repeat."""

import threading

import pytest
import torch

from ontick.diffusion import schedule
from ontick.runtime import VirtualClock, WallClock, load_budget
from ontick.video import Effort, Stream, Values, stream_plan
from ontick.video.session import Record, Session, draw, measure_reaction, warm_up

COSINE, SMALL, LATEST = schedule("squaredcos_cap_v2", 1000), (3, 4, 4), 200
BUDGET = load_budget("video-10fps-cpu")


class Slow(Stream):
    """A stream whose network takes its time."""

    call_s = 0.0

    def _tick(self, stride, effort):
        clock = WallClock()
        clock.sleep_until(clock.now() + self.call_s)
        return super()._tick(stride, effort)


@pytest.fixture
def opened(frame_oracle):
    """opened(name, call_s=0, **options) -> a stream whose frame i has the grey i."""

    def make(name, call_s=0.0, **options):
        greys = (torch.arange(LATEST) / 127.5 - 1)[:, None, None, None].expand(-1, *SMALL)
        stream = Slow(frame_oracle(greys), stream_plan(name, COSINE, 8, **options), SMALL, action_dim=2)
        stream.call_s = call_s
        return stream

    return make


def greys(pictures):
    return [int(picture.flat[0]) for picture in pictures]


def steer(frame):
    return torch.zeros(2)


def drawing():
    return [thread for thread in threading.enumerate() if thread.name == "ontick-draw"]


def session(stream, fps, shown, show=None):
    def keep(picture, told):
        shown.append((picture, told))
        if show:
            show(picture, told)

    return Session(stream, Values(), fps, steer, keep, BUDGET)


# -- as fast as frames come -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rolling", "full", "causal"])
def test_every_frame_comes_to_every_sink_in_order_and_the_numbers_agree(name, opened):
    one, other, stream = [], [], opened(name)
    record = draw(stream, Values(), 10, steer, [one.append, other.append])
    assert greys(one) == greys(other) == list(range(10))
    assert record.frames == 10 == sum(record.efforts.values()) == record.ledger.counter("answers")
    assert record.costs.n == 10 - stream.block, "the first block fills the ring, and is no budget's"
    assert record.intervals.n == 9 and record.calls == stream.calls and record.repeats == 0
    told = record.told(BUDGET)
    assert told["calls_per_frame"] == stream.calls / 10 and told["fps"] == pytest.approx(10 / record.seconds)
    assert 0 < told["first_frame_ms"] <= record.seconds * 1e3 and told["efforts"] == {"full": 10}
    assert told["frame_ms"]["p50"] <= told["frame_ms"]["p99"] <= told["frame_ms"]["max"]
    assert told["peak_bytes_start"] > 0 and told["peak_bytes_end"] > 0 and told["reaction_ms"] is None
    assert told["budget"] == {"name": BUDGET.name, "met": BUDGET.met(record.costs)}


def test_frames_are_steered_by_their_own_number(opened):
    asked = []
    draw(opened("rolling"), Values(), 4, lambda frame: asked.append(frame))
    assert asked == [0, 1, 2, 3]


def test_what_was_drawn_before_a_failure_is_in_the_record(opened):
    record = Record()

    def sink(picture):
        if record.frames == 3:
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        draw(opened("rolling"), Values(), 10, steer, [sink], record)
    assert record.frames == 3


def test_a_record_of_nothing_is_told_too():
    told = Record().told(BUDGET)
    assert told["fps"] == told["calls_per_frame"] == 0 and told["budget"]["met"] is False


def test_warming_up_and_measuring_a_reaction_leave_the_stream_as_it_was(opened):
    stream, record, clock = opened("rolling"), Record(), VirtualClock()
    warm_up(stream, steer, clock, record)
    assert stream.frames == stream.calls == 0
    measure_reaction(stream, torch.ones(2), -torch.ones(2), clock, record)
    assert stream.frames == stream.calls == 0 and record.reaction is None, "no pixel shows it"
    assert record.ledger.counter("answers") == 0


# -- on the clock -----------------------------------------------------------------------------------------------------


def test_a_session_shows_its_periods_and_counts_what_it_repeats(opened):
    shown = []
    record = session(opened("causal", steps=1), 100, shown).run(20)
    pictures = greys(picture for picture, _ in shown)
    assert len(shown) == 20 == record.frames + record.repeats and pictures[0] == 0
    new = [grey for i, grey in enumerate(pictures) if i == 0 or grey != pictures[i - 1]]
    assert new == list(range(len(new))) and len(new) == record.frames, "in order, none left out"
    assert record.seconds > 0 and record.dropped == record.flushed == 0 and not drawing()
    told = shown[-1][1]
    assert told["plan"] == "causal" and told["effort"] == "full" and told["action"] == [0, 0] and told["levels"]
    assert told["frame"] == record.frames and "ledger" not in told


def test_a_slow_stream_lowers_its_effort_and_its_late_frames_are_repeats(opened):
    shown = []
    # A call takes as long as a period: 4 calls a frame at full effort, 2 at the least.
    record = session(opened("rolling", call_s=0.01, stagger=4), 100, shown).run(30)
    assert len(shown) == 30 == record.frames + record.repeats
    assert record.repeats > 0 and record.ledger.counter("repeats") == record.repeats
    assert record.efforts["skip"] + record.efforts["short"] > record.efforts["full"]
    assert {told["effort"] for _, told in shown} > {"full"}


def test_a_stream_that_is_fast_enough_keeps_its_effort(opened):
    record = session(opened("causal", steps=4), 2, []).run(2)
    assert set(record.efforts) == {Effort.FULL.name.lower()} and record.repeats == 0


def test_what_the_drawing_thread_raises_is_raised_and_no_thread_is_left(opened):
    for fails_at in (0, 5):  # in the warm-up, and later

        def failing(frame, at=fails_at):
            if frame >= at:
                raise RuntimeError("no hands")
            return torch.zeros(2)

        run = Session(opened("rolling"), Values(), 100, failing, lambda picture, told: None, BUDGET)
        with pytest.raises(RuntimeError, match="no hands"):
            run.run(50)
        assert not drawing()


def test_what_showing_raises_is_raised_with_what_was_counted_and_no_thread_is_left(opened):
    def show(picture, told):
        if run.record.frames == 3:
            run.changed()
            raise KeyboardInterrupt

    run = session(opened("causal", steps=1), 10, [], show)
    with pytest.raises(KeyboardInterrupt):
        run.run()
    assert not drawing() and run.record.frames == 3
    assert run.record.flushed == run._queue.flushed


def test_it_can_be_stopped_from_another_thread(opened):
    shown = []
    stops = []

    def show(picture, told):
        if not stops:
            stops.append(threading.Timer(0.05, run.stop))
            stops[0].start()

    run = session(opened("rolling"), 50, shown, show)
    record = run.run()
    stops[0].join()
    assert record.frames + record.repeats == len(shown) > 0 and not drawing()


def test_a_change_throws_away_what_was_drawn_ahead(opened):
    shown = []
    run = session(opened("causal", steps=1), 10, shown, lambda picture, told: run.changed())
    record = run.run(6)
    pictures = greys(picture for picture, _ in shown)
    assert record.flushed > 0 and pictures == sorted(pictures) and pictures[-1] >= record.frames


def test_a_reaction_is_measured_first_where_it_is_asked_for(opened):
    stream = opened("causal", steps=1)
    record = session(stream, 100, []).run(2, probes=(torch.ones(2), -torch.ones(2)))
    assert record.reaction is None, "nothing this network draws depends on the action"
