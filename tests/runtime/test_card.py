import numpy as np
import pytest

from ontick.errors import InputError
from ontick.runtime import FollowingPolicy, InpaintingPolicy, LadderPolicy, Policy
from ontick.runtime.card import PolicyCard
from ontick.runtime.channel import LOST, STATES, Asked, Told, answer_dtype, question_dtype
from ontick.runtime.questions import Given, Question

CARD = PolicyCard(
    n_obs_steps=2,
    n_action_steps=4,
    observation_dim=3,
    action_dim=2,
    rows=8,
    plans=("a", "b"),
    costs_s=(0.02, 0.01),
    can_inpaint=True,
)


def test_a_card_survives_json_and_what_a_newer_server_adds():
    assert PolicyCard.from_dict({**CARD.to_dict(), "colour": "red"}, "server") == CARD


def test_a_card_keeps_the_terms_of_the_robot_that_it_was_packed_for():
    terms = {"name": "arm", "period_ms": 50.0, "actions": {"kind": "delta", "scale": [0.05]}, "limits": None}
    told = {**CARD.to_dict(), "robot": terms}
    packed = PolicyCard.from_dict(told, "server")
    assert packed.robot == terms and packed.to_dict() == told and hash(packed) == hash(CARD)
    del told["robot"]
    assert PolicyCard.from_dict(told, "server").robot is None


def test_a_policy_is_known_again_whatever_it_costs_today():
    again = PolicyCard.from_dict({**CARD.to_dict(), "costs_s": [0.5, 0.4]}, "server")
    assert CARD.is_same_policy(again)
    for change in ({"plans": ["a", "c"]}, {"plans": ["a"], "costs_s": [0.1]}, {"rows": 9}, {"robot": {"name": "arm"}}):
        assert not CARD.is_same_policy(PolicyCard.from_dict({**CARD.to_dict(), **change}, "server"))


@pytest.mark.parametrize(
    "change",
    [
        {"rows": 2},
        {"rows": 10**9},
        {"action_dim": 0},
        {"costs_s": [0.1]},
        {"costs_s": [0.1, float("nan")]},
        {"plans": []},
    ],
)
def test_a_card_that_no_policy_has_is_refused(change):
    with pytest.raises(InputError):
        PolicyCard.from_dict({**CARD.to_dict(), **change}, "server")


def test_a_card_without_a_number_says_which():
    told = CARD.to_dict()
    del told["rows"]
    with pytest.raises(InputError, match="rows"):
        PolicyCard.from_dict(told, "server")


def test_the_stand_in_has_the_policy_s_shapes_and_abilities_and_never_answers():
    stand_in = CARD.stand_in()
    assert isinstance(stand_in, LadderPolicy) and stand_in.names == ("a", "b")
    rung = stand_in.rungs[0]
    assert isinstance(rung, Policy) and isinstance(rung, InpaintingPolicy) and isinstance(rung, FollowingPolicy)
    assert not rung.continues
    with pytest.raises(RuntimeError, match="elsewhere"):
        rung.predict_with_tail(np.zeros((1, 2, 3)), [0])


@pytest.mark.parametrize("kept", [None, ((np.ones((3, 2), np.float32), 2),)])
@pytest.mark.parametrize("rungs", [None, (1,)])
def test_a_question_survives_its_record(kept, rungs):
    question = Question((0,), np.arange(6, dtype=np.float32).reshape(1, 2, 3), (5,), kept, rungs)
    asked = Asked(7, 1.5, 1.4, 0.4, 123, True, question)
    got = Asked.of(asked.record(question_dtype(CARD)))
    assert got[:6] == asked[:6] and got.question.behind == (5,) and got.question.rungs == rungs
    assert np.array_equal(got.question.obs, question.obs)
    if kept is None:
        assert got.question.kept is None
    else:
        assert np.array_equal(got.question.kept[0][0], kept[0][0]) and got.question.kept[0][1] == 2


def test_an_answer_survives_its_record_and_one_that_failed_has_no_rows():
    rows = np.arange(12, dtype=np.float32).reshape(6, 2)
    told = Told(7, 2.0, 0.5, 0.4, rung=1, given=Given(rows, 4, 3, 0.5), discarded=2)
    got = Told.of(told.record(answer_dtype(CARD)))
    assert np.array_equal(got.given.rows, rows) and got.given[1:] == (4, 3, 0.5) and (got.rung, got.discarded) == (1, 2)
    lost = Told.of(Told(8, 2.0, 0.5, state=LOST, reason="é" * 200).record(answer_dtype(CARD)))
    assert lost.given is None and STATES[lost.state] == "lost" and lost.reason.startswith("ééé")
