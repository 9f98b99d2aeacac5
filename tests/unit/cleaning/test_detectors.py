import pytest

from assay_cleaning.categories import Category
from assay_cleaning.detectors import DETECTORS, Reading
from assay_data.conversations import Message, PreferencePair

QUESTION = "How do I grow tomatoes in a small garden?"
ANSWER = "First check the soil, then plant the seedlings in full sunlight and water them each morning."
OTHER = "Tomatoes are sold in shops, and many people like them with salt."
LOOP = "The soil is important. " * 6


def pair(chosen, rejected, question=QUESTION, **fields):
    return PreferencePair((Message("user", question),), chosen, rejected, **fields)


def spoken(one):
    reading = Reading(one)
    return {detector.name for detector in DETECTORS if detector.evidence(reading)}


@pytest.mark.parametrize(
    ("detector", "one"),
    [
        ("empty_answer", pair("", ANSWER)),
        ("empty_answer", pair(ANSWER, " \n")),
        ("empty_answer", pair("...", "-")),
        ("empty_question", pair(ANSWER, OTHER, question=" ?")),
        ("empty_question", PreferencePair((Message("assistant", "Hello."),), ANSWER, OTHER)),
        ("empty_question", PreferencePair((), ANSWER, OTHER)),
        ("near_duplicate_answers", pair("You’re welcome.", "You're welcome!")),
        ("near_duplicate_answers", pair(ANSWER, ANSWER.upper())),
        ("near_duplicate_answers", pair(ANSWER, ANSWER.replace("full", "bright"))),
        ("near_duplicate_answers", pair(":-)", ":-)")),
        ("repeats_itself", pair(LOOP, OTHER)),
        ("repeats_itself", pair(ANSWER, LOOP)),
        ("both_harmful", pair("Stab him when he opens the door.", "You could poison his dog.")),
        ("both_harmful", pair("Those people are worthless scum.", "Just steal the money while nobody is looking.")),
        ("both_harmful", pair("Fuck you, you stupid bitch.", "They are all idiots.")),
        ("non_answers", pair("I'm not sure.", "What do you mean?")),
        ("non_answers", pair("I don't understand your question.", "It depends.")),
        ("non_answers", pair("Ok.", "Hmm, I have no idea.")),
        ("unclear_question", pair(ANSWER, OTHER, question="um, so what")),
        ("different_contexts", pair(ANSWER, OTHER, rejected_prompt=(Message("user", "How do I cook rice?"),))),
    ],
)
def test_a_detector_speaks_where_it_should(detector, one):
    assert detector in spoken(one)


@pytest.mark.parametrize(
    "one",
    [
        pair(ANSWER, OTHER),
        pair("42", "41"),
        pair("Yes.", "No."),
        pair("😀", "I am glad that it worked."),
        pair("Ja, natürlich: Tomaten brauchen Sonne.", "我不知道西红柿需要什么。"),
        pair("I can help you with that tomato plant today.", "I can't help you with that tomato plant today."),
        pair(ANSWER, "I'm not sure."),
        pair("Sorry, I can't help with that, it is illegal.", "I won't help you to hurt anybody."),
        pair("I'm sorry, I can't help you steal from your neighbour.", "Just steal the money while nobody is looking."),
        pair("Please don't hurt him, talk with him instead.", "You should beat him up."),
        pair("Do you want to hurt him?", "Why would you kill somebody?"),
        pair(ANSWER, OTHER, question="Kill the weeds! What should I do with the shit in my garden?"),
        pair("Row, row, row your boat, gently down the stream.", ANSWER),
        PreferencePair((Message("user", QUESTION), Message("assistant", ANSWER), Message("user", "so what then")), OTHER, ANSWER),
    ],
)
def test_no_detector_speaks_where_none_should(one):
    assert spoken(one) == set()


def test_each_evidence_says_what_it_measured():
    for one in (pair("", ANSWER), pair(LOOP, OTHER), pair("I'm not sure.", "What do you mean?"), pair("Kill him.", "Stab her.")):
        reading = Reading(one)
        for evidence in filter(None, (detector.evidence(reading) for detector in DETECTORS)):
            assert evidence.score >= evidence.threshold
            assert 0.5 < evidence.confidence < 1
            assert evidence.explanation


def test_names_are_unique_and_each_category_but_the_directions_has_a_detector():
    assert len({detector.name for detector in DETECTORS}) == len(DETECTORS)
    assert {detector.category for detector in DETECTORS} == set(Category) - {Category.SAME, Category.OPPOSITE}


def test_more_of_the_same_makes_a_detector_surer():
    (detector,) = [detector for detector in DETECTORS if detector.name == "repeats_itself"]
    mild = detector.evidence(Reading(pair("The soil is very important here. " * 2 + ANSWER[:60], OTHER)))
    strong = detector.evidence(Reading(pair(LOOP, OTHER)))
    assert strong.confidence > (mild.confidence if mild else 0.7)


@pytest.mark.timeout(20)
def test_long_and_hostile_texts_take_no_time():
    for text in (
        "a " * 150_000,
        "kill " * 60_000,
        "i'm not sure " * 20_000,
        "x" * 300_000,
        "take " + "the " * 60_000,
        "\n" * 300_000 + "a",
    ):
        spoken(pair(text, text + " b"))
