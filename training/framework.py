"""One training step of MotionCharacter (arXiv 2411.18281), from a batch to its losses."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from training import cache as caches
from training.batch import Batch
from training.cache import Cache, fingerprint
from training.components import SCRATCH, Components, frames_of, latents_of, posterior_of
from training.config import FitConfig
from training.data import pixels_for
from training.losses import identity_loss, predicted_z0, region_loss, region_weight, total_loss
from training.model import adapter_parameters, conditions, pack_identity
from training.small import PixelVAE


@dataclass
class Drops:
    """Which conditions of which sample are dropped; bool (B,) each."""

    text: Tensor
    image: Tensor
    action: Tensor
    clip: Tensor

    @classmethod
    def none(cls, batch: int) -> Drops:
        """Nothing dropped."""
        return cls(*(torch.zeros(batch, dtype=torch.bool) for _ in range(4)))

    @classmethod
    def draw(cls, batch: int, config: FitConfig, generator: torch.Generator) -> Drops:
        """Text alone, image alone and both are disjoint events; both takes the action too (guidance's other branch)."""
        event, action, clip = torch.rand(3, batch, generator=generator)
        only_text = event < config.drop_text
        only_image = (event >= config.drop_text) & (event < config.drop_text + config.drop_image)
        edge = config.drop_text + config.drop_image
        both = (event >= edge) & (event < edge + config.drop_both)
        return cls(only_text | both, only_image | both, (action < config.drop_action) | both, clip < config.drop_clip)


@dataclass
class Noise:
    """All that is random in a step besides the data: steps t (B,); epsilon, the noise, and eta, the draw of the VAE's
    posterior, like z0 (B, C, N, h, w); drops."""

    t: Tensor
    epsilon: Tensor
    eta: Tensor
    drops: Drops


@dataclass
class Losses:
    """Losses of a batch: scalars. active: share of samples for which L_id was computed."""

    total: Tensor
    l_r: Tensor
    l_id: Tensor
    active: Tensor


class Framework(nn.Module):
    """V = F(I, P, A, M) in training. Trainable parameters are those with requires_grad."""

    def __init__(self, components: Components, config: FitConfig) -> None:
        super().__init__()
        self.config = config
        self.spec = components.spec
        self.scheduler = components.scheduler
        self.tokenizer = components.tokenizer
        self.unet = components.unet
        self.vae = components.vae
        self.text_encoder = components.text_encoder
        self.image_encoder = components.image_encoder
        self.arcface = components.arcface
        self.register_buffer("alpha_bar", components.scheduler.alphas_cumprod.clone(), persistent=False)
        self.cache: Cache | None = None
        self._choose_trainable()

    def _choose_trainable(self) -> None:
        """The adapter; of models built from scratch everything that the loss reaches."""
        self.requires_grad_(False)
        for part in adapter_parameters(self.unet).values():
            for parameter in part.values():
                parameter.requires_grad_()
        if self.config.base == SCRATCH:
            self.unet.requires_grad_()
            self.text_encoder.requires_grad_()
        if self.config.image_encoder == SCRATCH:
            # The penultimate layer is read: what comes after it would get no gradient.
            self.image_encoder.requires_grad_()
            self.image_encoder.visual_projection.requires_grad_(False)
            self.image_encoder.vision_model.post_layernorm.requires_grad_(False)
            self.image_encoder.vision_model.encoder.layers[-1].requires_grad_(False)

    def trainable(self) -> dict[str, nn.Parameter]:
        """Parameters that are trained, by name."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def noise(self, batch: Batch, generator: torch.Generator) -> Noise:
        """Draw a step's randomness; it depends on the generator (on the CPU) and the batch's shape alone."""
        size = len(batch.clip_id)
        _, frames, _, height, width = batch.video.shape
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        t = torch.randint(0, self.scheduler.config.num_train_timesteps, (size,), generator=generator)
        shape = (size, self.unet.config.in_channels, frames, height // factor, width // factor)
        epsilon = torch.randn(shape, generator=generator)
        drops = Drops.draw(size, self.config, generator)
        return Noise(t, epsilon, torch.randn(shape, generator=generator), drops)

    def use(self, cache: Cache) -> Cache:
        """Keep what the frozen VAE and text encoder give in `cache` and read it there; returns it with fingerprints."""
        how = (self.config.precision, self.alpha_bar.device.type)
        latents = text = None
        if not isinstance(self.vae, PixelVAE):
            latents = fingerprint(self.vae, str(self.vae.config.scaling_factor), *how)
        if self.config.base != SCRATCH:
            text = fingerprint(self.text_encoder, *how)
        self.cache = Cache(cache.folder, latents, text)
        return self.cache

    @torch.no_grad()
    def z0(self, batch: Batch, eta: Tensor) -> Tensor:
        """Latents of the videos, (B, C, N, h, w), drawn with eta; from the cache where it has their posteriors."""
        posteriors = []
        for video, entry in zip(batch.video, batch.entry, strict=True):
            posterior = entry.posterior
            if posterior is None:
                posterior = posterior_of(self.vae, video)
                if entry.path is not None:
                    caches.keep(entry.path, posterior.cpu().numpy())
            posteriors.append(posterior.to(video.device))
        return latents_of(self.vae, torch.stack(posteriors), eta)

    def encode_text(self, texts: list[str]) -> Tensor:
        """(B, T, text_dim), with padding to the full length, as the pipeline encodes prompts.

        A frozen encoder sees one text at a time, or none where the cache has its embedding.
        """
        if self.config.base == SCRATCH:
            return self._embed(texts)
        return torch.cat([self._frozen_embedding(text) for text in texts])

    @torch.no_grad()
    def _frozen_embedding(self, text: str) -> Tensor:
        if self.cache is None or self.cache.text is None:
            return self._embed([text]).float()
        device = self.alpha_bar.device
        # Sampling while training runs without autocast, and gives other last digits.
        path = self.cache.path(f"text/{self.cache.text}", text, torch.is_autocast_enabled(device.type))
        kept = caches.read(path)
        if kept is not None:
            return torch.from_numpy(kept).to(device)
        embedding = self._embed([text]).float()
        caches.keep(path, embedding.cpu().numpy())
        return embedding

    def _embed(self, texts: list[str]) -> Tensor:
        distinct = list(dict.fromkeys(texts))
        tokens = self.tokenizer(
            distinct,
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        embeddings = self.text_encoder(tokens.input_ids.to(self.alpha_bar.device))[0]
        return embeddings[[distinct.index(text) for text in texts]]

    def encode_face(self, face: Tensor, reference: Tensor, warp: Tensor) -> tuple[Tensor, Tensor]:
        """E_arc (B, arc_dim), unit length, of the aligned reference; E_clip (B, L, clip_dim) of the face cut out of it.

        E_clip: patch tokens of the penultimate layer.
        """
        e_arc = nn.functional.normalize(self.arcface(reference, warp))
        pixels = pixels_for(self.image_encoder.config.image_size, face).to(self.image_encoder.dtype)
        e_clip = self.image_encoder(pixels, output_hidden_states=True).hidden_states[-2]
        return e_arc, e_clip

    def condition(self, batch: Batch, drops: Drops) -> tuple[Tensor, list[Tensor], Tensor]:
        """Text tokens (B, T, text_dim) of P, `image_embeds` [I, A, M] of the UNet, and phi(I) (B, arc_dim)."""
        device = self.alpha_bar.device
        captions = ["" if gone else text for text, gone in zip(batch.caption, drops.text, strict=True)]
        actions = ["" if gone else text for text, gone in zip(batch.action, drops.action, strict=True)]
        e_arc, e_clip = self.encode_face(batch.face, batch.reference, batch.reference_warp)
        keep_arc = (~drops.image).to(device)[:, None]
        keep_clip = (~(drops.image | drops.clip)).to(device)[:, None, None]
        identity = pack_identity(e_arc * keep_arc, e_clip * keep_clip)
        c = conditions(identity, self.encode_text(actions), batch.m, self.spec.motion_control)
        return self.encode_text(captions), c, e_arc

    def predict(self, z_t: Tensor, t: Tensor, text: Tensor, c: list[Tensor]) -> Tensor:
        """The UNet's output, (B, C, N, h, w)."""
        text = text.repeat_interleave(z_t.shape[2], dim=0)  # every frame attends to P
        return self.unet(z_t, t, encoder_hidden_states=text, added_cond_kwargs={"image_embeds": c}).sample

    def forward(self, batch: Batch, noise: Noise) -> Losses:
        """The losses of one step."""
        config, device = self.config, self.alpha_bar.device
        t, epsilon = noise.t.to(device), noise.epsilon.to(device)
        z0 = self.z0(batch, noise.eta.to(device))
        z_t = self.scheduler.add_noise(z0, epsilon, t)
        text, c, e_reference = self.condition(batch, noise.drops)
        prediction = self.predict(z_t, t, text, c)
        target = self.target(z0, epsilon, t)

        w = region_weight(batch.flow, z0.shape[2], z0.shape[-2:]) if config.region_loss else None  # Eq. 9
        l_r = region_loss(prediction, target, w).mean()  # Eq. 10

        l_id, active = l_r.new_zeros(len(t)), torch.zeros_like(t, dtype=torch.bool)
        if config.identity_loss:
            active = (t < config.identity_t_max) & batch.has_face & ~noise.drops.image.to(device)
        if active.any():
            z0_hat = predicted_z0(prediction.float(), z_t, self.alpha_bar[t], config.prediction_type)
            faces = self.embed_frames(z0_hat[active], batch.id_frames[active], batch.id_warps[active])
            l_id = l_id.masked_scatter(active, identity_loss(e_reference[active], faces))  # Eq. 4
        total = total_loss(l_r, l_id.mean(), config.beta)  # Eq. 11
        return Losses(total, l_r, l_id.sum() / active.sum().clamp_min(1), active.float().mean())

    def target(self, z0: Tensor, epsilon: Tensor, t: Tensor) -> Tensor:
        """What the UNet is to predict."""
        if self.config.prediction_type == "epsilon":
            return epsilon
        return self.scheduler.get_velocity(z0, epsilon, t)

    def embed_frames(self, z0: Tensor, frames: Tensor, warps: Tensor) -> Tensor:
        """phi(D(z0)) of K frames: z0 (B, C, N, h, w), frames (B, K), warps (B, K, 2, 3) -> (B, K, arc_dim).

        Decoded one by one and again in the backward pass: a decoder keeps gigabytes a frame otherwise.
        """
        rows = torch.arange(len(z0), device=z0.device)[:, None].expand_as(frames)
        chosen = z0.transpose(1, 2)[rows, frames].flatten(0, 1)  # (B K, C, h, w)
        decoded = [
            checkpoint(frames_of, self.vae, latent[None], use_reentrant=False, preserve_rng_state=False)
            for latent in chosen
        ]
        return self.arcface(torch.cat(decoded), warps.flatten(0, 1)).unflatten(0, frames.shape)
