"""The whole controller drives the simulated robot's world with the shipped policy in virtual time, which repeats."""

import numpy as np
import pytest

pytest.importorskip("ruckig")

from ontick.commands.robot_terms import terms_of
from ontick.commands.sources import opener, source_of
from ontick.envs.simulated_world import STEP_S, AvoidWorld, Life, Sensors, describe
from ontick.runtime import LatencyBudget, Overlap, VirtualClock
from ontick.runtime.channel import Asked, answer_dtype, question_dtype
from ontick.runtime.controller import Controller, tick_dtype
from ontick.runtime.loop import ControlLoop
from ontick.runtime.rings import Ring
from ontick.runtime.robots import Observed
from ontick.runtime.safety import SafetyGate


class World:
    """A robot whose world moves on as far as the clock has."""

    def __init__(self, clock):
        self.clock, self.life, self.sensors, self.time_s = clock, Life(AvoidWorld()), Sensors(), 0.0

    def catch_up(self):
        while self.time_s + STEP_S <= self.clock.now() + 1e-9:
            self.time_s += STEP_S
            self.life.step(self.time_s, False)

    def observe(self):
        world = self.life.world
        return Observed(self.sensors.read(world), np.full(2, self.time_s), world.tool_m, self.life.episode)

    def command(self, waypoints):
        self.life.hear(waypoints, self.clock.now())

    def stop(self):
        """Nothing to let go of."""


class WorldClock(VirtualClock):
    world: World

    def sleep_until(self, time_s):
        super().sleep_until(time_s)
        self.world.catch_up()


def drive(episodes, delay_s, period_s, stitch="replace"):
    """(successes, what was told) of so many episodes, whose answers take delay_s."""
    source = opener(source_of(None, "exact-anchored-2"), "cpu", "cpu-20hz")()
    terms, card, description = terms_of("sim"), source.card, describe(period_s)
    clock = WorldClock()
    world = clock.world = World(clock)
    rings = [Ring.create(dtype(card), 8) for dtype in (question_dtype, answer_dtype)]
    rings.append(Ring.create(tick_dtype(description, 2), 16))
    questions, answers, ticks = rings
    on_the_way = []

    class Delayed:
        dtype = answers.dtype

        def take(self):
            while on_the_way and on_the_way[0][0] <= clock.now():
                answers.put(on_the_way.pop(0)[1].record(answers.dtype))
            return answers.take()

    def asked():
        on_the_way.append((clock.now() + delay_s, source.answer(Asked.of(questions.newest()))))

    budget = LatencyBudget(name="test", period_s=terms.period_s, deadline_s=terms.answer_s)
    loop = ControlLoop(card.stand_in(), 1, terms.actions.hold, budget, overlap=Overlap(stitch, "play"))
    gate = SafetyGate(description, terms.actions, (card.n_action_steps, 2), 0.2, 0.8, action_period_s=terms.period_s)
    controller = Controller(
        world, description, terms.actions, gate, loop, questions, Delayed(), ticks, asked, clock, 0.4, 0, terms.target
    )
    controller.run(0.0, lambda now_s: world.life.episodes >= episodes)
    for ring in rings:
        ring.close()
        ring.unlink()
    return world.life.successes, controller.told()


@pytest.mark.parametrize(
    "episodes, delay_s, period_s, stitch", [(4, 0.005, 0.02, "replace"), (2, 0.03, 0.02, "inpaint")]
)
def test_the_shipped_policy_solves_the_task_through_the_whole_controller(episodes, delay_s, period_s, stitch):
    successes, told = drive(episodes, delay_s, period_s, stitch)
    assert successes == episodes
    assert told["starved"] == 0 and told["fault"] is None and told["gate"].get("gate", 0) == 0


@pytest.mark.slow
def test_the_same_seeds_give_the_same_drive():
    first, second = (drive(1, 0.03, 0.01)[1] for _ in range(2))
    for told in (first, second):
        told.pop("stopped_s"), told.pop("lateness_us")
    assert first == second
