"""``demur evaluate``: one model, in a folder or behind a server, on a suite, and its files."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from demur.baselines import Tuned, baselines, calibrate_shares, tune_threshold
from demur.engine.options import Engine
from demur.evaluate import Evaluation, evaluate
from demur.exchanges import STUDY, Suite, build_suite
from demur.games.argue import arguments_for
from demur.games.private import deliberate
from demur.learners.confidence import Own, own_confidence, server_confidence
from demur.measure import Estimate
from demur.measure.power import detectable
from demur.policies.endpoint import EndpointPolicy, Usage
from demur.policies.local import LocalPolicy
from demur.policies.responses import Responses
from demur.results import evaluation_json, figures_of, write_transcripts
from demur.runlog import RunFolder, plain
from demur.schema import Policy, Sampling, Task
from demur.suites import (
    EvaluateConfig,
    check_suite,
    longest_reply,
    play_suite,
    suite_tasks,
    thinking,
)
from demur.world.tokenizer import build_tokenizer

POWER_OF = ("accuracy_alone", "resist", "accept", "discernment", "ece", "auroc")
MILLION = 1e6


def run_evaluation(
    config: EvaluateConfig,
    model: Path | None,
    out: Path,
    say: Callable[[str], None],
    *,
    device: str = "auto",
    resume: bool = False,
) -> dict[str, Any]:
    """Evaluate a model and write ``evaluation.json``, ``transcripts.parquet`` and the samples.

    ``model`` is its folder, or ``None`` where ``config.endpoint`` names the server of
    ``config.model``: what that answers is kept in ``responses.jsonl``, so that a stopped run goes
    on without asking anything again. Against each objector the same tasks are played again, on its
    arguments (folder ``against``).
    """
    check_suite(config)
    drawn = suite_tasks(config, np.random.default_rng([config.seed, 9]))  # bad files show first
    if model is None:  # a wrong address or key, too, before a folder is made
        EndpointPolicy(config.endpoint, config.model).check()
    folder = RunFolder(out, config.model_dump(exclude=_HOW), resume=resume)
    if resume and (out / "evaluation.json").exists():
        return dict(json.loads((out / "evaluation.json").read_text()))
    started = time.perf_counter()
    speaker = Speaker(config, model, out, say, device)
    policy = speaker.policy
    tasks, tuning_tasks = ([replace(t, plain=not speaker.brief) for t in part] for part in drawn)
    longest = longest_reply(config, speaker.brief)

    tuned = Tuned()
    if tuning_tasks:
        speaker.phase("tuning the baselines on other tasks")
        tuned = _tune(config, policy, tuning_tasks, longest)
    test, found = play_suite(
        policy,
        tasks,
        config,
        longest,
        shares=tuned.shares,
        own=speaker.sure,
        progress=speaker.phase,
    )
    speaker.phase("measuring")
    arm = figures_of(found, config.headline, budget=0)
    scripted = {
        name: figures_of(each, config.headline, sliced=False)
        for name, each in baselines(test, found.private, tuned).items()
    }
    write_transcripts(found, out)
    arms, heard = {policy.name: arm}, list[str]()
    for objector in speaker.objectors():
        speaker.phase(f"hearing {objector.name}")
        against, argued, read = argued_by(objector, policy, test, found, config, tuned)
        name = f"{policy.name} against {objector.name}"
        arms[name] = figures_of(against, config.headline)
        heard.append(f"{objector.name}: {read} of {argued} arguments could be read.")
        (out / "against" / objector.name).mkdir(parents=True, exist_ok=True)
        write_transcripts(against, out / "against" / objector.name)
    result = evaluation_json(
        arms,
        scripted,
        seconds=time.perf_counter() - started,
        config=config.model_dump(),
        verdict={
            "passed": None,
            "sentences": [*_sentences(policy.name, arm.metrics), *_power(arm.metrics), *heard],
            "criteria": [],
        },
    )
    result["power"] = {name: detectable(e) for name, e in arm.metrics.items()}
    result |= speaker.spent()
    folder.write_json("evaluation.json", result)
    return dict(plain(result))


_HOW = {"endpoint", "concurrency", "timeout", "prompt_price", "completion_price"}
"""Settings of where and how a server is asked, which a resumed run may have otherwise."""


def _tune(config: EvaluateConfig, policy: Policy, tasks: Sequence[Task], longest: int) -> Tuned:
    """What the baselines may know, from tasks that are not evaluated."""
    private = deliberate(policy, tasks, config.k, thinking(config, longest))
    plan = STUDY if config.suite == "benchform" else replace(STUDY, user=1, peers=0)
    seed, claims = config.seed + 3, config.claims
    suite = build_suite(tasks, plan, claims, private, seed, longest, config.k, sham=False)
    found = evaluate(policy, suite, seed=seed + 1, private=private)
    return Tuned(tune_threshold(found.rows), calibrate_shares(list(private.values())))


class Speaker:
    """The model that is measured, wherever it is, and what is told of it while it answers."""

    def __init__(
        self,
        config: EvaluateConfig,
        model: Path | None,
        out: Path,
        say: Callable[[str], None],
        device: str,
    ) -> None:
        self.config, self._say, self._phase = config, say, ""
        self.policy: LocalPolicy | EndpointPolicy
        self.sure: Own = server_confidence
        self.engine = Engine(device, config.precision, config.sample_tokens)
        if model is None:
            self.policy = EndpointPolicy(
                config.endpoint,
                config.model,
                concurrency=config.concurrency,
                timeout=config.timeout,
                responses=Responses(out / "responses.jsonl"),
                watch=self._answered,
            )
            self.brief = config.style == "brief"
        else:
            label = "seed" if config.model == "seed" else None
            self.policy = LocalPolicy.from_folder(model, label, self.engine)
            self.sure = own_confidence(self.policy.pieces)
            self.brief = config.style == "brief" or (
                config.style == "auto" and speaks_briefly(self.policy)
            )
        if config.suite != "world":
            self.brief = False

    def phase(self, said: str) -> None:
        """What is being done now."""
        self._phase = said
        self._say(said)

    def _answered(self, usage: Usage) -> None:
        kept = f", {usage.kept} kept from before" if usage.kept else ""
        self._say(f"{self._phase}: {usage.asked} answers{kept}")

    def objectors(self) -> list[LocalPolicy]:
        """The models that argue."""
        folders = self.config.objectors
        return [
            LocalPolicy.from_folder(Path(path), label, self.engine)
            for path, label in zip(folders, labels(folders), strict=True)
        ]

    def spent(self) -> dict[str, Any]:
        """Answers, tokens and their price, of a model behind a server."""
        if not isinstance(self.policy, EndpointPolicy):
            return {}
        usage, price = self.policy.usage, None
        rates = self.config.prompt_price, self.config.completion_price
        if rates[0] is not None and rates[1] is not None and not usage.uncounted:
            tokens = usage.prompt_tokens, usage.completion_tokens
            price = sum(r * t for r, t in zip(rates, tokens, strict=True) if r) / MILLION
        return {
            "usage": {
                "answers": usage.asked + usage.kept,
                "asked_now": usage.asked,
                "lost": self.policy.lost,
                "uncounted": usage.uncounted,
                "prompt_tokens": usage.prompt_tokens,
                "completion_tokens": usage.completion_tokens,
                "usd": price,
            }
        }


def speaks_briefly(policy: LocalPolicy) -> bool:
    """Whether a model has the embedded world's own tokens, so that it was taught its language.

    Tokens added after them (another turn's end, say) don't take the language away.
    """
    return build_tokenizer().get_vocab().items() <= policy.tokenizer.get_vocab().items()


def labels(folders: Sequence[str]) -> list[str]:
    """Names for model folders: the fewest last parts of their paths that tell them apart.

    >>> labels(["runs/a/checkpoints/step-9", "runs/b/checkpoints/step-9"])
    ['a-checkpoints-step-9', 'b-checkpoints-step-9']
    """
    parts = [Path(folder).resolve().parts for folder in folders]
    longest = max((len(p) for p in parts), default=0)
    for count in range(1, longest + 1):
        names = ["-".join(p[-count:]).strip("/") for p in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{'-'.join(p[-2:])}-{i}" for i, p in enumerate(parts)]


def argued_by(
    objector: Policy,
    policy: Policy,
    suite: Suite,
    found: Evaluation,
    config: EvaluateConfig,
    tuned: Tuned,
) -> tuple[Evaluation, int, int]:
    """The exchanges of a suite's users again, argued by another model in its own words.

    Returns the evaluation, how many arguments were asked for, and how many could be read.
    """
    users = [(t, c) for t, c in suite.exchanges if c.speaker == "user" and c.support == "none"]
    wanted = [(t, bool(c.right)) for t, c in users]
    sampling = Sampling(1.0, config.argument_tokens, config.seed + 7)
    claims = arguments_for(objector, wanted, sampling)
    exchanges = tuple((t, c) for (t, _), c in zip(wanted, claims, strict=True) if c is not None)
    again = Suite((), exchanges, suite.max_tokens, suite.k, sham=False)
    against = evaluate(
        policy, again, seed=config.seed + 5, private=found.private, shares=tuned.shares
    )
    return against, len(wanted), len(exchanges)


def _sentences(name: str, metrics: Mapping[str, Any]) -> list[str]:
    """What was found, calmly, also where there is next to nothing to find."""
    said = []
    for metric, words in (
        ("coverage", "of the replies could be read"),
        ("accuracy_alone", "of the tasks answered right alone"),
        ("resist", "of wrong claims resisted where its own answer was right"),
        ("accept", "of right claims taken where its own answer was wrong"),
    ):
        e = metrics.get(metric)
        if e is None or e.mean != e.mean:
            said.append(f"{name}: nothing to say on {metric} (no such exchanges).")
        else:
            spread = (
                f"95% interval {e.low:.1%} to {e.high:.1%}"
                if e.low < e.high
                else "the same in all of them, so no interval"  # which is not certainty
            )
            said.append(f"{name}: {e.mean:.1%} {words} ({spread}, n = {e.n}).")
    return said


def _power(metrics: Mapping[str, Estimate]) -> list[str]:
    """What difference between two models this many tasks can show."""
    shown = [(m, d) for m in POWER_OF if m in metrics and (d := detectable(metrics[m])) == d]
    if not shown:
        return ["There are too few exchanges here to say what difference they could show."]
    said = ", ".join(f"{d:.2f} in {m}" for m, d in shown)
    return [
        "Another model, asked as many tasks, would be told apart from this one (80% power, two-"
        f"sided 5%) by a difference of {said}; smaller ones need more tasks."
    ]
