"""The supervised track beside policy gradient, from the round that was just played.

PCL (arXiv 2507.20252) adds the likelihood of good replies and assessments to its policy gradient:

    loss = policy gradient + w_1 * (-log pi(reply)) + w_2 * (-log pi(assessment))

Here a good reply is one of the round that was judged right, and an assessment is written by the
rules themselves, so PCL's down-weighting of assessments that disagree with them has nothing to do:
the share of the group's replies that were right, and whether this one could be read. (Its own
verdict, 0 or 1, would teach to say nothing between them, and what is never said is never paid.)
Samples without behaviour log-probabilities
count as drawn from the policy as it is: their policy gradient with an advantage of w is w times the
gradient of the likelihood.
"""

from __future__ import annotations

from collections.abc import Sequence

from demur.games.post_completion import ASSESSOR, after
from demur.games.rounds import RESPONDER
from demur.learners.distil import Voice
from demur.reply import POST_COMPLETION, render_assessment
from demur.schema import Dialogue, Group, Reply, Sample, Verdict


def imitations(
    groups: Sequence[Group],
    verdicts: Sequence[Sequence[Verdict]],
    voice: Voice,
    reply: float,
    assessment: float,
) -> list[Sample]:
    """One reply judged right, and one assessment, of each group of replies, at their weights."""
    samples: list[Sample] = []
    for number, (group, judged) in enumerate(zip(groups, verdicts, strict=True)):
        if not group.answers:
            continue
        ended = [
            (e, v)
            for e, v in zip(group.episodes, judged, strict=True)
            if v is not None and e.turns[-1].completion.stop == "stop"
        ]
        right = [e for e, v in ended if v >= 0.5 and isinstance(e.reply, Reply)]
        if right and reply > 0:
            turn = right[0].turns[-1]
            text = turn.completion.text + POST_COMPLETION
            samples.append(_sample(voice, turn.dialogue, text, reply, number, RESPONDER))
        if ended and assessment > 0:
            episode = ended[number % len(ended)][0]
            share = sum(v for _, v in ended) / len(ended)
            text = render_assessment(share, float(isinstance(episode.reply, Reply)))
            samples.append(_sample(voice, after(episode), text, assessment, number, ASSESSOR))
    return samples


def _sample(
    voice: Voice, dialogue: Dialogue, text: str, weight: float, group: int, seat: str
) -> Sample:
    prompt_ids, ids = voice.encode(dialogue, text)
    return Sample(prompt_ids, ids, (), (weight,) * len(ids), group, seat)
