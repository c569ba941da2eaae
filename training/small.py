"""Small models in the place of published ones: built from scratch, for a laptop's CPU."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import Any

import numpy as np
import torch
from diffusers import ConfigMixin, ModelMixin, UNetMotionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    PreTrainedTokenizerFast,
)

from training.config import FitConfig

FRAME_POSITION = 10.0  # how much louder than usual the small UNet's temporal attention hears the place of a frame
TOKENS = 16  # text length of the small text encoder
PAD, UNKNOWN, BOS, EOS = "<pad>", "<unk>", "<s>", "</s>"


def block_basis(patch: int, count: int) -> Tensor:
    """The `count` lowest cosine frequencies of a block of colour pixels, orthonormal rows (count, 3 patch^2).

    Columns are ordered as pixel_unshuffle's channels. A frequency is one higher in colour than in brightness.
    """
    from scipy.fft import dct

    wave = dct(np.eye(patch), axis=0, norm="ortho")
    colours = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
    order = sorted(product(range(3), range(patch), range(patch)), key=lambda i: (i[1] + i[2] + (i[0] > 0), i))
    rows = [np.einsum("c,y,x->cyx", colours[c], wave[y], wave[x]).ravel() for c, y, x in order[:count]]
    return torch.tensor(np.stack(rows), dtype=torch.float32)


class PixelVAE(ModelMixin, ConfigMixin):
    """Stands in for the VAE where there are no weights: a latent pixel holds the `latents` lowest cosine frequencies of
    a block of `patch` x `patch` pixels; None: all of them, and nothing is lost.

    Nothing is learned. The interface is what a pipeline uses of AutoencoderKL.
    """

    @register_to_config
    def __init__(self, patch: int = 2, latents: int | None = None, scaling_factor: float = 1.0) -> None:
        super().__init__()
        if patch & (patch - 1):
            raise ValueError(f"patch is {patch}: expected a power of 2")
        levels = patch.bit_length()  # the pipeline takes 2 ** (levels - 1) for the reduction
        self.register_to_config(block_out_channels=[latents or 3 * patch**2] * levels)
        self.basis = nn.Parameter(block_basis(patch, latents or 3 * patch**2), requires_grad=False)

    def encode(self, pixels: Tensor) -> Tensor:
        """(n, 3, H, W), -1..1 -> (n, latents, H / patch, W / patch)."""
        return torch.einsum("kc,nchw->nkhw", self.basis, functional.pixel_unshuffle(pixels, self.config.patch))

    def decode(self, latents: Tensor) -> DecoderOutput:
        """The nearest pixels that have these latents."""
        blocks = torch.einsum("kc,nkhw->nchw", self.basis, latents)
        return DecoderOutput(sample=functional.pixel_shuffle(blocks, self.config.patch))


def small_unet(config: FitConfig, frames: int) -> UNetMotionModel:
    """The UNet that is trained from scratch; all its levels have cross-attention."""
    levels = len(config.channels)
    unet = UNetMotionModel(
        sample_size=config.size // config.patch,
        in_channels=config.latent_channels,
        out_channels=config.latent_channels,
        block_out_channels=config.channels,
        down_block_types=("CrossAttnDownBlockMotion",) * levels,
        up_block_types=("CrossAttnUpBlockMotion",) * levels,
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=config.text_dim,
        num_attention_heads=4,
        motion_num_attention_heads=4,
        motion_max_seq_length=max(32, frames),
    )
    # As it comes, temporal attention sees its frames all but alike: which frame it is explains 5e-6 of the output's
    # variance before training, and nothing that differs from frame to frame can be asked for. With this, a tenth.
    for name, table in unet.named_buffers():
        if name.endswith("pos_embed.pe"):
            table.mul_(FRAME_POSITION)
    return unet


def small_text_encoder(config: FitConfig, tokenizer: PreTrainedTokenizerFast) -> CLIPTextModel:
    """Two layers over the words of `small_tokenizer`."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.text_dim,
            intermediate_size=2 * config.text_dim,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def small_image_encoder(config: FitConfig) -> CLIPVisionModelWithProjection:
    """Two layers over 4 x 4 patches; it is trained along."""
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=config.text_dim,
            intermediate_size=2 * config.text_dim,
            projection_dim=config.text_dim,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=32,
            patch_size=8,
        )
    )


def small_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Whole words of these texts, lower case; unknown words share one token."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    normalizer = normalizers.Lowercase()
    splitter = pre_tokenizers.Whitespace()
    words = {word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))}
    words |= {"left", "right"}  # a mirrored text may have words of its own
    vocabulary = {word: i for i, word in enumerate([PAD, UNKNOWN, BOS, EOS, *sorted(words)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A {EOS}", special_tokens=[(BOS, vocabulary[BOS]), (EOS, vocabulary[EOS])]
    )
    return wrap_tokenizer(tokenizer)


def wrap_tokenizer(tokenizer: Any) -> PreTrainedTokenizerFast:
    """A `tokenizers.Tokenizer` made by `small_tokenizer`, with the interface of transformers."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNKNOWN,
        model_max_length=TOKENS,
    )
