"""A local checkpoint as a judge: our own policy and rollout, greedy, one reply per pair."""

from __future__ import annotations

import math
from collections.abc import Sequence

from qhk.data.seeds import stream_generator
from qhk.pairs.judge import (
    Emit,
    Judged,
    failed_answer,
    load_pair,
    pair_messages,
    question_digest,
    read_answer,
)
from qhk.pairs.manifest import PairManifest
from qhk.pairs.records import Pair
from qhk.policy.load import Policy
from qhk.policy.prompt import EncodedPrompt
from qhk.rollout.sample import sample_in_batches


class PolicyJudge:
    """Shows both pictures of a pair to ``policy`` and reads yes or no in its reply."""

    def __init__(
        self,
        manifest: PairManifest,
        policy: Policy,
        *,
        label: str,
        question: str,
        temperature: float,
        max_new_tokens: int,
        batch_pairs: int,
        decode_batch: int,
        seed: int,
    ) -> None:
        """``label`` names the checkpoint in the records; ``batch_pairs`` bounds memory, changes no result."""
        self.manifest, self.policy, self.question = manifest, policy, question
        self.temperature, self.max_new_tokens = temperature, max_new_tokens
        self.batch_pairs, self.decode_batch, self.seed = batch_pairs, decode_batch, seed
        digest = question_digest(question, temperature=temperature, max_new_tokens=max_new_tokens, seed=seed)
        self.name = f"{label}#{digest}"

    def judge(self, pairs: Sequence[Pair], emit: Emit) -> None:
        """Emit the answers batch by batch; a pair whose files cannot be read is a failure."""
        for start in range(0, len(pairs), self.batch_pairs):
            shown: list[tuple[Pair, int, EncodedPrompt]] = []
            for pair in pairs[start : start + self.batch_pairs]:
                version = pair.copy.version
                try:
                    images = load_pair(self.manifest, pair, version=version)
                except ValueError as error:
                    emit([failed_answer(pair, version, error)])
                    continue
                shown.append(
                    (pair, version, self.policy.encoder.encode(pair_messages(self.question), images))
                )
            if shown:
                emit(self._answers(shown))

    def _answers(self, shown: Sequence[tuple[Pair, int, EncodedPrompt]]) -> list[Judged]:
        sampled = sample_in_batches(
            self.policy,
            [prompt for _, _, prompt in shown],
            [stream_generator(self.seed, "judge", pair.group_id, version) for pair, version, _ in shown],
            group_size=1,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            decode_batch=self.decode_batch,
        )
        answers = []
        for (pair, version, prompt), group in zip(shown, sampled, strict=True):
            reply = self.policy.tokenizer.decode(group.completion_ids[0], skip_special_tokens=True)
            verdict, failure = read_answer(reply)
            more = {
                "prompt_tokens": prompt.num_tokens,
                "completion_tokens": len(group.completion_ids[0]),
                "confidence": math.exp(float(group.logprobs[0].sum())),  # the probability of this reply
            }
            answers.append(
                Judged(pair=pair, version=version, verdict=verdict, failure=failure, reply=reply, more=more)
            )
        return answers
