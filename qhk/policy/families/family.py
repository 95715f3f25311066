"""What the platform asks of a family of models; each family is a module beside this one."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from qhk.policy.prompt import EncodedPrompt, PromptEncoder

BLOCKS = ("vision", "merger", "language", "head")


class Family(ABC):
    """A family of models, found by the ``model_type`` of a checkpoint's config.

    ``model_class`` and ``processor_class`` are those of transformers that read a checkpoint; the latter takes
    limits of pixels where ``has_pixel_limits`` says so. ``slow_because`` is empty where completions can be
    packed behind their prompt, else the reason why each takes a row of its own; ``has_positions`` says that
    the model is then told where tokens stand, since that does not simply count.

    ``places`` are regular expressions, by block, of how the dotted names of weights and layers begin; the
    first that fits counts. ``linear_places`` are those behind which the own names of linear layers stand.
    ``vision_modules`` are never quantised. ``time_form`` is how the frame of a video is told its time in
    words before it, with the seconds to be put in; empty where the family has no such words.
    """

    model_type: ClassVar[str]
    model_class: ClassVar[Any]
    processor_class: ClassVar[Any]
    has_pixel_limits: ClassVar[bool] = True
    slow_because: ClassVar[str] = ""
    has_positions: ClassVar[bool] = False
    time_form: ClassVar[str] = ""
    places: ClassVar[Mapping[str, str]]
    linear_places: ClassVar[Mapping[str, str]]
    vision_modules: ClassVar[Sequence[str]]

    @abstractmethod
    def check(self, model: Any) -> None:
        """Raise ``UserError`` where a model that was read is not built as the family asks."""

    def tokenizer(self, tokenizer: Any, image_processor: Any) -> Any:
        """Return the tokenizer to use: the one that was read by itself, or the processor's."""
        return tokenizer

    @abstractmethod
    def prepare(self, model: Any) -> None:
        """Give the model the attention functions of this project, in place."""

    @abstractmethod
    def encoder(self, model: Any, tokenizer: Any, image_processor: Any) -> PromptEncoder:
        """Return what turns messages and pictures into prompts of this model."""

    @abstractmethod
    def end_tokens(self, model: Any, tokenizer: Any) -> tuple[int, ...]:
        """Return the ids that end a completion; the first one ends a turn of the assistant."""

    @abstractmethod
    def encode_images(self, model: Any, prompts: Sequence[EncodedPrompt]) -> Tensor:
        """Return (image tokens of all prompts, width), the features of the pictures, in prompt order.

        The first ``hidden size`` columns stand in for embeddings of image tokens; ``enter`` knows the others.
        """

    def enter(self, features: Tensor, *, hidden_size: int, is_image: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """Return the embeddings (image tokens, hidden) among ``features``, and what else the text takes.

        ``is_image`` (rows, L) marks the places that they go to, row by row.
        """
        return features, {}

    @property
    def text_mask(self) -> Any:
        """Return what tells the text model that its attention needs no mask."""
        return None

    @abstractmethod
    def layers(self, model: Any) -> list[nn.Module]:
        """Return the layers of text and blocks of vision, each of which is gathered by itself."""

    def block_of(self, name: str) -> str:
        """Return which of ``BLOCKS`` a weight or layer is in, by its dotted name."""
        return next(block for block, place in self.places.items() if re.match(place, name))

    def vision_weights(self, model: nn.Module) -> list[nn.Parameter]:
        """Return the weights that lead from pixels to features."""
        named = model.named_parameters()
        return [weight for name, weight in named if self.block_of(name) in ("vision", "merger")]
