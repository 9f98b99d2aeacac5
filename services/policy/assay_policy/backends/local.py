"""transformers, in this process."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from assay_kit.errors import AssayError, InvalidArgument
from assay_policy.decoding import Chunk, Decoded, answer_log_probs, decode
from assay_policy.device import Device, Steps
from assay_policy.generation import Answer, Facts, Outcome, Scoring, Work, prompt_seeds
from assay_policy.rendering import Renderer
from assay_policy.sampling import noise_of

logger = logging.getLogger(__name__)

_NEEDED = ("attention_mask", "position_ids", "past_key_values", "logits_to_keep")
_LOGITS_AT_ONCE = 1 << 24


class LocalBackend:
    """A causal LM on the service's device.

    The same request gives the same answers after any restart and beside any other request: its chunks are cut in request
    order, each answer's noise comes from seed and prompt, and a chunk is decoded alone.
    """

    def __init__(self, *, model: Any, tokenizer: Any, fingerprint: str, device: Device, chunk_answers: int) -> None:
        """Takes a model in eval mode.

        Args:
            model: a transformers causal LM.
            tokenizer: its tokenizer, with a chat template.
            fingerprint: of weights, tokenizer and chat template.
            device: the thread to work on.
            chunk_answers: answers that are decoded together.
        """
        self._renderer = Renderer(tokenizer)
        self._model = model
        self._device = device
        self._chunk_answers = chunk_answers
        self._eos = _eos_ids(model, tokenizer)
        self._pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self._eos[0]
        self._vocabulary = model.get_input_embeddings().num_embeddings
        context = getattr(model.config, "max_position_embeddings", 0) or getattr(model.config, "n_positions", 0) or 0
        self._facts = Facts(fingerprint=fingerprint, max_context_tokens=context)

    @classmethod
    def load(cls, folder: Path, *, fingerprint: str, device: Device, torch_device: str, dtype: str, chunk_answers: int) -> LocalBackend:
        """Reads a folder as `save_pretrained` of model and tokenizer writes it.

        Raises:
            InvalidArgument: there is no causal LM in it that this backend can run; says what is missing.
        """
        disable_progress_bar()  # the log is for lines
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder)
            model, report = AutoModelForCausalLM.from_pretrained(folder, dtype=_dtype(dtype, torch_device), output_loading_info=True)
        except (OSError, ValueError, KeyError) as error:
            raise InvalidArgument("uri", f"no causal language model that transformers can read: {error}") from error
        if absent := sorted(report["missing_keys"]):
            raise InvalidArgument("uri", f"no causal language model: the checkpoint lacks {', '.join(absent[:3])}")
        missing = [name for name in _NEEDED if name not in inspect.signature(model.forward).parameters]
        if missing:
            raise InvalidArgument("uri", f"{type(model).__name__} does not take {', '.join(missing)}; load it through a generation server")
        return cls(
            model=model.to(torch_device).eval(), tokenizer=tokenizer, fingerprint=fingerprint, device=device, chunk_answers=chunk_answers
        )

    @property
    def facts(self) -> Facts:
        """Fingerprint and context."""
        return self._facts

    def generate(self, work: Work) -> Future[None]:
        """Queues the request on the device."""
        return self._device.submit(self._generate(work), work.ticket)

    def log_probs(self, scoring: Scoring) -> Future[list[float]]:
        """Queues the request on the device."""
        return self._device.submit(self._log_probs(scoring), scoring.ticket)

    def close(self) -> None:
        """Lets go of the weights."""
        del self._model
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _generate(self, work: Work) -> Steps:
        sampling = work.sampling
        prompts: dict[int, list[int]] = {}
        for index, turns in enumerate(work.prompts):
            try:
                prompts[index] = self._prompt_ids(turns, sampling.max_new_tokens)
            except AssayError as error:
                work.emit(index, Outcome(error=error))
        yield
        greedy = sampling.temperature == 0
        seeds = prompt_seeds(sampling.seed, work.prompts)
        stopped = self._renderer.stop_test(sampling.stop)
        pending: dict[int, list[Answer]] = {}
        noise: dict[int, torch.Tensor] = {}
        for rows in _chunks([(index, sample) for index in prompts for sample in range(work.n)], self._chunk_answers):
            indices = list(dict.fromkeys(index for index, _ in rows))
            if not greedy:
                kept = {index: noise[index] for index in indices if index in noise}
                fresh = {i: noise_of(seeds[i], answers=work.n, tokens=sampling.max_new_tokens) for i in indices if i not in kept}
                noise = kept | fresh
            chunk = Chunk(
                prompts=[prompts[index] for index in indices],
                rows=[indices.index(index) for index, _ in rows],
                uniform=None if greedy else torch.stack([noise[index][sample] for index, sample in rows]),
            )
            decoded = decode(self._model, chunk, sampling, eos_ids=self._eos, pad_id=self._pad, stopped=stopped, check=work.ticket.check)
            for (index, _), one in zip(rows, decoded, strict=True):
                answers = pending.setdefault(index, [])
                answers.append(self._answer(one, sampling.stop))
                if len(answers) == work.n:
                    work.emit(index, Outcome(answers=tuple(pending.pop(index)), prompt_tokens=len(prompts[index])))
            yield

    def _log_probs(self, scoring: Scoring) -> Steps:
        pairs = []
        for index, (turns, answer) in enumerate(scoring.items):
            try:
                pairs.append((self._prompt_ids(turns, len(answer)), self._known(answer)))
            except InvalidArgument as error:
                field, description = error.violations[0]
                raise InvalidArgument(f"items[{index}].{field}", description) from error
        sums: list[float] = []
        for batch in self._batches(pairs):
            full = [pair for pair in batch if pair[1]]
            told = iter(answer_log_probs(self._model, full, pad_id=self._pad) if full else ())
            sums += [next(told) if answer else 0.0 for _, answer in batch]
            yield
        return sums

    def _batches(self, pairs: Sequence[tuple[list[int], Sequence[int]]]) -> Iterator[Sequence[tuple[list[int], Sequence[int]]]]:
        """The pairs in order, as many at once as their logits leave room for."""
        batch: list[tuple[list[int], Sequence[int]]] = []
        longest = 0
        for pair in pairs:
            longest = max(longest, len(pair[1]) + 1)
            if batch and (len(batch) + 1) * longest * self._vocabulary > _LOGITS_AT_ONCE:
                yield batch
                batch, longest = [], len(pair[1]) + 1
            batch.append(pair)
        if batch:
            yield batch

    def _prompt_ids(self, turns: Any, new_tokens: int) -> list[int]:
        ids = self._renderer.ids(turns)
        context = self._facts.max_context_tokens
        if not ids:
            raise InvalidArgument("conversation", "renders to no token at all")
        if context and len(ids) + new_tokens > context:
            raise InvalidArgument(
                "conversation",
                f"{len(ids)} tokens, and {new_tokens} for the answer, exceed the context of {context} tokens; "
                f"at most {max(0, context - new_tokens)} leave room for the answer",
            )
        return ids

    def _known(self, answer: Sequence[int]) -> Sequence[int]:
        for place, token in enumerate(answer):
            if token >= self._vocabulary:
                raise InvalidArgument(f"tokens.ids[{place}]", f"{token} is no token of the policy; they end at {self._vocabulary - 1}")
        return answer

    def _answer(self, decoded: Decoded, stop: Sequence[str]) -> Answer:
        return Answer(
            text=self._renderer.answer(decoded.token_ids, stop),
            token_ids=decoded.token_ids,
            finish=decoded.finish,
            log_prob=decoded.log_prob,
            tokens=len(decoded.token_ids),
        )


def _chunks(rows: Sequence[tuple[int, int]], size: int) -> Iterator[Sequence[tuple[int, int]]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _eos_ids(model: Any, tokenizer: Any) -> list[int]:
    told = model.generation_config.eos_token_id if model.generation_config is not None else None
    ids = {*(told if isinstance(told, list) else [told]), tokenizer.eos_token_id} - {None}
    if not ids:
        raise InvalidArgument("uri", "neither generation config nor tokenizer name an end-of-sequence token")
    return sorted(ids)


def _dtype(name: str, torch_device: str) -> Any:
    if name == "auto":
        return torch.float32 if torch_device == "cpu" else "auto"
    return getattr(torch, name)
