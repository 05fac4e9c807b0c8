"""A causal language model on this machine, run by transformers, one prompt at a time.

For trials and small sets; a server with an OpenAI-compatible endpoint answers many prompts at once.
"""

from __future__ import annotations

import asyncio
from threading import Lock
from typing import Any

from .generators import ModelOptions, Prompt, Reply


class LocalGenerator:
    """A model and its tokenizer; the same prompt and seed give the same reply.

    It answers one prompt after the other, so ask it with `Manners(concurrency=1)`.
    """

    def __init__(self, model: str, options: ModelOptions) -> None:
        """Load a model.

        Args:
            model: Hub id or directory.
            options: Sampling and length; there is no structured output.

        Raises:
            OSError: there is no such model.
            ValueError: it cannot be loaded.
        """
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.name = f"local:{model}"
        self._options, self._lock = options, Lock()
        self._tokenizer: Any = AutoTokenizer.from_pretrained(model)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        loaded: Any = AutoModelForCausalLM.from_pretrained(model, dtype="auto")
        self._model: Any = loaded.to(device).eval()

    async def __call__(self, prompt: Prompt) -> Reply:
        """See `TextGenerator`."""
        return await asyncio.to_thread(self._answer, prompt)

    def _answer(self, prompt: Prompt) -> Reply:
        """Generate a reply; threads take turns."""
        import torch

        ids = self._ids(prompt.text)
        longest = getattr(self._model.config, "max_position_embeddings", None)
        room = self._options.max_reply_tokens
        if longest is not None:
            room = min(room, longest - len(ids))
        if room < 1:
            # The prompt leaves no room for a reply: it counts as one that was cut off.
            return Reply("", len(ids), 0, truncated=True)
        fed = torch.tensor([ids], device=self._model.device)
        with self._lock, torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(prompt.seed)
            made = self._model.generate(
                fed,
                attention_mask=torch.ones_like(fed),
                max_new_tokens=room,
                **self._sampling(),
            )
        reply = made[0, len(ids) :].tolist()
        ended = bool(reply) and reply[-1] in self._ends()
        text = self._tokenizer.decode(reply, skip_special_tokens=True)
        return Reply(text, len(ids), len(reply), truncated=not ended and len(reply) >= room)

    def _ids(self, text: str) -> list[int]:
        """Token ids of a prompt, in the model's chat format if it has one."""
        if self._tokenizer.chat_template is None:
            found: list[int] = self._tokenizer(text).input_ids
            return found
        turns = [{"role": "user", "content": text}]
        given = self._tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, return_dict=True
        )
        return list(given["input_ids"])

    def _sampling(self) -> dict[str, Any]:
        """Arguments for `generate`: how to sample, and where to end."""
        temperature = self._options.temperature
        ends = sorted(self._ends())
        pad = self._tokenizer.pad_token_id
        pad = next(iter(ends), 0) if pad is None else pad
        fixed = {"eos_token_id": ends or None, "pad_token_id": pad}
        if temperature == 0:
            return fixed | {"do_sample": False}
        return fixed | {
            "do_sample": True,
            "temperature": 1.0 if temperature is None else temperature,
            "top_p": 1.0 if self._options.top_p is None else self._options.top_p,
            "top_k": 0,
        }

    def _ends(self) -> set[int]:
        """Ids that end a reply, by the model's own configuration."""
        named = self._model.generation_config.eos_token_id
        named = named if isinstance(named, list) else [named]
        return {end for end in (*named, self._tokenizer.eos_token_id) if end is not None}
