"""Toxic: both answers are harmful.

Four kinds of harm are looked for, sentence by sentence, in the *answers* (never in the question): insults aimed at somebody, coarse
and hateful words, calls to violence, and help with a crime. Calls and help do not count in a sentence that warns, forbids, refuses or
asks ("Please don't hurt him", "I can't help you steal", "You want to hurt him?"), and coarse words alone weigh less than the rest.
A pair is toxic only where *both* answers are; one harmful answer beside a harmless one is what harmlessness data is for.

What this cannot see: irony, harm in plain words that are in no pattern, and whether an insult is a quotation. It is a net with
known holes, made for precision; a classifier can be added as a further detector.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from assay_cleaning.categories import Category
from assay_cleaning.detectors.base import Detector, Finding, Reading, Text, quoted

_SOMEBODY = (
    r"(?:him|her|them|you|somebody|someone|people|anybody|anyone|(?:the|that|his|her|their|your|those|this) (?:\w+ )?"
    r"(?:man|woman|guy|girl|kid|child|dog|cat|boss|neighbou?r|wife|husband|family|bitch))"
)
_INSULTING = (
    r"(?:idiots?|morons?|stupid|dumb(?:ass)?|worthless|scum|vermin|trash|garbage|pathetic|losers?|retard(?:ed|s)?|pigs?|animals|filth(?:y)?"
    r"|ugly|disgusting|inferior|subhuman|parasites?|lazy|bastards?|bitch(?:es)?|assholes?|sluts?|whores?|freaks?|imbeciles?|troglodytes?"
    r"|mentally ill|cockroach(?:es)?|degenerates?|savages)"
)
_THEY_ARE = (
    r"(?:you(?:'re| are)|they(?:'re| are)|he(?:'s| is)|she(?:'s| is)|people(?: like (?:that|you|him|her|them))? are"
    r"|(?:those|these|all|most|the|such) \w+ are|\w+s are)"
)
_INSULT = re.compile(rf"\b{_THEY_ARE} (?:\w+ ){{0,3}}{_INSULTING}\b|\byou (?:\w+ )?(?:idiot|moron|bitch|bastard|asshole|scum)\b")
_COARSE = re.compile(
    r"\b(?:(?:mother)?fuck(?:s|er|ers|ed|ing)?|shit(?:s|ty|head)?|bitch(?:es)?|cunts?|assholes?|dickheads?|whores?|sluts?|bastards?|pussy|cocks?"
    r"|dicks?|tits|wank(?:er)?s?|twats?|faggots?|fags?|nigg(?:er|a)s?|kikes?|spics?|chinks?|gooks?|trann(?:y|ies)|dykes?|retards?)\b"
)
_GUARDED = re.compile(
    r"\?|\b(?:don't|do not|doesn't|never|not|can't|cannot|won't|wouldn't|shouldn't|isn't|sorry|wrong|illegal|crime|against the law|harmful"
    r"|dangerous|avoid|prevent|stop|police|instead|rather than|refuse|unethical|worried|concerned|please)\b"
)


_STRIKE = (
    r"(?:kill|murder|stab|shoot|strangle|choke|beat|punch|kick|slap|poison|drown|burn|torture|rape|hurt|attack|slit|suffocate|run over)"
)
_VIOLENCE = re.compile(
    rf"\b{_STRIKE}\b(?: up| down)?(?: \w+)? {_SOMEBODY}\b"
    rf"|\b{_SOMEBODY} deserves? to (?:die|suffer|be (?:killed|hurt|beaten))|\b{_SOMEBODY} (?:should|must) (?:die|be (?:killed|shot))"
    r"|\b(?:kill|poison|burn|drown|stab|beat|punch|shoot) (?:his|her|their|your|the) \w+|\bset fire to\b"
    r"|\bslash (?:his|her|their|the) \w+|\bthreaten (?:him|her|them|his|their|to)\b|\bdeserve to (?:die|suffer)\b"
    r"|\bhide the body\b|\bspit on\b"
)
_CRIME = re.compile(
    r"\b(?:steal|shoplift|rob|swipe|scam|defraud|blackmail|con|kidnap|stalk|smuggle|counterfeit|forge|launder)\b \w+"
    r"|\b(?:make|build|cook|buy|get) (?:\w+ ){0,2}(?:bombs?|meth|explosives?|pipe bomb|cocaine|heroin|fake ids?)\b"
    r"|\b(?:hack|break) into\b|\bpick the lock\b|\bhot-?wire\b|\b(?:get|getting) away with (?:it|murder)\b"
    r"|\bwithout (?:getting|being) caught\b|\b(?:empty|drain) (?:her|his|their) account\b"
    r"|\bwhile (?:nobody|no one) (?:is )?(?:watch|look)\w*\b"
    r"|\b(?:take|grab|put) .{0,40}(?:run (?:away|out)|under your (?:coat|shirt|jacket))"
)


@dataclass(frozen=True)
class _Harm:
    """A kind of harm: name, pattern, weight (1 - the doubt one find leaves), and whether guarded sentences are passed over."""

    name: str
    pattern: re.Pattern[str]
    weight: float
    guarded: bool


_HARMS = (
    _Harm("an insult", _INSULT, 0.7, True),
    _Harm("a coarse or hateful word", _COARSE, 0.45, False),
    _Harm("a call to violence", _VIOLENCE, 0.65, True),
    _Harm("help with a crime", _CRIME, 0.6, True),
)


def harmfulness(text: Text) -> tuple[float, str]:
    """How harmful an answer is, 0..1, and what was found; each find leaves less doubt, whatever its kind."""
    doubt = 1.0
    found: list[str] = []
    for sentence in text.sentences:
        guarded = _GUARDED.search(sentence) is not None
        for harm in _HARMS:
            if harm.guarded and guarded:
                continue
            match = harm.pattern.search(sentence)
            if match:
                doubt *= 1.0 - harm.weight
                found.append(f"{harm.name} ({quoted(match.group(), 40)})")
    return 1.0 - doubt, ", ".join(dict.fromkeys(found[:3]))


def _both_harmful(reading: Reading) -> Finding | None:
    chosen, in_chosen = harmfulness(reading.chosen)
    if not in_chosen:
        return None
    rejected, in_rejected = harmfulness(reading.rejected)
    if not in_rejected:
        return None
    return Finding(score=min(chosen, rejected), explanation=f"chosen: {in_chosen}; rejected: {in_rejected}")


TOXIC = (
    Detector(
        name="both_harmful",
        category=Category.TOXIC,
        description="pairs of which both answers insult, use coarse words, call to violence or help with a crime; the lesser counts",
        version=1,
        threshold=0.6,
        top=0.95,
        certainty=(0.7, 0.95),
        look=_both_harmful,
    ),
)
