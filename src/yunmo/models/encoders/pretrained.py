"""A pretrained Transformer for texts (BERT and its relatives), fine-tuned: all of it, its last layers, or by LoRA.

The network is the library ``transformers``' own, made of the few values that the field's statistics keep of its
``config.json``: no file of the encoder's folder reaches the library, and nothing is fetched. LoRA (Hu et al. 2021,
https://arxiv.org/abs/2106.09685) is the library ``peft``'s. Both are imported where a model has such a text.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import safetensors
import torch
from torch import Tensor, nn

from yunmo.core import encoders as specs
from yunmo.core.errors import DataError, MissingExtra
from yunmo.core.fields import FieldStatistics
from yunmo.core.pretrained import Architecture
from yunmo.models.encoders.base import Encoder
from yunmo.models.encoders.pooling import mean, real

_ATTENTION = {
    "bert": ["query", "value"],
    "electra": ["query", "value"],
    "roberta": ["query", "value"],
    "distilbert": ["q_lin", "v_lin"],
    "mpnet": ["q", "v"],
}
"""Names of the matrices that make queries and values."""
_CLASSES = {
    "bert": ("BertConfig", "BertModel"),
    "distilbert": ("DistilBertConfig", "DistilBertModel"),
    "electra": ("ElectraConfig", "ElectraModel"),
    "mpnet": ("MPNetConfig", "MPNetModel"),
    "roberta": ("RobertaConfig", "RobertaModel"),
}
"""The library's configuration and network of each architecture."""
_NO_POOLER = ("distilbert", "electra")
_OWN_KEYS = {
    "distilbert": {
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
        "hidden_act": "activation",
        "hidden_dropout_prob": "dropout",
        "attention_probs_dropout_prob": "attention_dropout",
    }
}
"""Keys that an architecture has under other names."""
_LEFT_OUT: dict[str, tuple[str, ...]] = {
    "bert": ("embedding_size", "relative_attention_num_buckets"),
    "distilbert": ("embedding_size", "relative_attention_num_buckets", "type_vocab_size", "layer_norm_eps"),
    "electra": ("relative_attention_num_buckets",),
    "mpnet": ("embedding_size", "type_vocab_size"),
    "roberta": ("embedding_size", "relative_attention_num_buckets"),
}
"""Keys that an architecture does not have."""
_OLD_NAMES = {".gamma": ".weight", ".beta": ".bias"}
"""How norms were called in files of 2018, and are called now."""
_BESIDE = ("pooler.", "embeddings.position_ids", "embeddings.token_type_ids")
"""Parts of an encoder's file that are not read: a layer for another task, and numbers that are counted."""
_SHOWN = 3


class PretrainedEncoder(Encoder):
    """Token numbers to the mean of the last layer's states, or the first one; padding is not attended to.

    It is made with random weights; `begin` reads those of the folder, and training's or a bundle's are loaded into it.
    """

    def __init__(self, spec: specs.PretrainedEncoder, statistics: FieldStatistics) -> None:
        super().__init__()
        if statistics.pretrained is None:
            raise DataError("nothing is known of the pretrained encoder", where=f"field {statistics.name}")
        self.spec, self.name = spec, statistics.name
        self.architecture = statistics.pretrained.architecture
        self.model: nn.Module = _build(self.architecture, spec.dropout)
        self.frozen: list[nn.Module] = []
        self.features = self.architecture.hidden_size

    def forward(self, values: Tensor, length: Tensor | None = None) -> Tensor:
        """Encode a batch of token numbers int32 ``[N, T]``: see `Encoder.forward`."""
        if length is None:
            length = torch.full_like(values[:, 0], values.shape[1], dtype=torch.int64)
        if not torch.onnx.is_in_onnx_export():
            values = values[:, : max(1, int(length.max()))]
        # Beyond the last position, which no text of the field reaches, a graph stays defined.
        most = self.architecture.max_position_embeddings - 1
        positions = torch.arange(values.shape[1], device=values.device) + self.architecture.first_position
        states: Tensor = self.model(
            input_ids=values,
            attention_mask=real(values, length).squeeze(2),
            position_ids=positions.clamp(max=most).unsqueeze(0),
        ).last_hidden_state
        return states[:, 0] if self.spec.pool == "cls" else mean(states, length)

    def train(self, mode: bool = True) -> PretrainedEncoder:
        """Set the mode; what is not trained has no dropout either."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    def begin(self, weights: Path) -> None:
        """Read the folder's weights, and leave for training what is to be trained.

        Args:
            weights: the folder's safetensors file.

        Raises:
            DataError: it is damaged, or its tensors are not those of the architecture.
            MissingExtra: LoRA, and peft is not installed.
        """
        self.model.load_state_dict(_read(weights, self.model, self.name))
        match self.spec.tune:
            case "none":
                self._freeze([self.model])
            case "last":
                layers = list(_layers(self.model))
                kept = layers[max(0, len(layers) - self.spec.last) :]
                self._freeze(list(_leaves(self.model, kept)))
            case "lora":
                self.model = _with_lora(self.model, self.spec.lora, self.architecture)

    def finish(self) -> None:
        """Add LoRA's changes to the matrices; without LoRA nothing is to be done."""
        if self.spec.tune == "lora" and hasattr(self.model, "merge_and_unload"):
            # peft's own class, which is not there where there is no LoRA.
            merged: Any = self.model
            self.model = merged.merge_and_unload()

    def _freeze(self, modules: list[nn.Module]) -> None:
        self.frozen = modules
        for module in modules:
            module.requires_grad_(False)
        self.train(self.training)


def _layers(model: nn.Module) -> nn.ModuleList:
    """Return an encoder's layers: the only list of modules that it has, under whatever name."""
    return next(module for module in model.modules() if isinstance(module, nn.ModuleList))


def _leaves(model: nn.Module, kept: list[nn.Module]) -> Iterator[nn.Module]:
    """Yield the largest parts of a model that have none of the kept ones in them."""
    chosen = {id(part) for layer in kept for part in layer.modules()}
    for child in model.children():
        if id(child) in chosen:
            continue
        if any(id(part) in chosen for part in child.modules()):
            yield from _leaves(child, kept)
        else:
            yield child


def _build(architecture: Architecture, dropout: float | None) -> nn.Module:
    """Return the library's network with random weights.

    Raises:
        MissingExtra: the library is not installed.
    """
    with _library("transformers"):
        import transformers
    within = architecture.hidden_dropout_prob if dropout is None else dropout
    attention = architecture.attention_probs_dropout_prob if dropout is None else dropout
    settings: dict[str, Any] = {
        **msgspec.structs.asdict(architecture),
        "hidden_dropout_prob": within,
        "attention_probs_dropout_prob": attention,
        "embedding_size": architecture.embedding_size or architecture.hidden_size,
        # What generates texts has no part in an encoder.
        "bos_token_id": None,
        "eos_token_id": None,
    }
    kind = settings.pop("model_type")
    own = _OWN_KEYS.get(kind, {})
    settings = {own.get(key, key): value for key, value in settings.items() if key not in _LEFT_OUT[kind]}
    # By name: the library makes its classes when they are asked for, and not all of them are typed.
    library: Any = transformers
    config_class, model_class = _CLASSES[kind]
    config = getattr(library, config_class)(**settings)
    pooled = {} if kind in _NO_POOLER else {"add_pooling_layer": False}
    model: nn.Module = getattr(library, model_class)(config, **pooled)
    return model


def _read(weights: Path, model: nn.Module, name: str) -> dict[str, Tensor]:
    """Return a file's tensors under the names of a model, as float32.

    Raises:
        DataError: one is missing, or there beyond the architecture, or has another shape or a type that is none.
    """
    where = f"field {name}, model.safetensors"
    expected = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    try:
        with safetensors.safe_open(weights, framework="pt") as file:
            names = _encoder_names(list(file.keys()), model)
            shapes = {key: tuple(file.get_slice(given).get_shape()) for key, given in names.items()}
            _compare(expected, shapes, where)
            tensors = {key: file.get_tensor(names[key]) for key in expected}
    except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
        raise DataError(f"damaged: {error}", where=where, remedy="Get the file again") from None
    for key, tensor in tensors.items():
        if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
            raise DataError(
                f"{key} has values of the type {tensor.dtype}", where=where, remedy="Save it as float32 or float16"
            )
        if not bool(tensor.isfinite().all()):
            raise DataError(f"{key} has NaN or infinity", where=where, remedy="Get the file again")
    return {key: tensor.float() for key, tensor in tensors.items()}


def _encoder_names(given: list[str], model: nn.Module) -> dict[str, str]:
    """Return the encoder's tensors of a file by the names that they have in the model; heads are left out."""
    prefix = f"{model.base_model_prefix}."
    inner = [name for name in given if name.startswith(prefix)]
    chosen = {name.removeprefix(prefix): name for name in inner} if inner else {name: name for name in given}
    named = {}
    for key, name in chosen.items():
        old = next((ending for ending in _OLD_NAMES if key.endswith(ending)), None)
        if not key.startswith(_BESIDE):
            named[key.removesuffix(old) + _OLD_NAMES[old] if old else key] = name
    return named


def _compare(expected: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]], where: str) -> None:
    remedy = "Give config.json and model.safetensors of one encoder"
    for what, names in (
        ("are missing", sorted(expected.keys() - found.keys())),
        ("are beyond what config.json describes", sorted(found.keys() - expected.keys())),
    ):
        if names:
            more = ", …" if len(names) > _SHOWN else ""
            message = f"{len(names)} tensors {what}: {', '.join(names[:_SHOWN])}{more}"
            raise DataError(message, where=where, remedy=remedy)
    for name, shape in expected.items():
        if found[name] != shape:
            raise DataError(
                f"{name} has the shape {found[name]}, and config.json describes {shape}", where=where, remedy=remedy
            )


def _with_lora(model: nn.Module, spec: specs.LoraSpec, architecture: Architecture) -> nn.Module:
    with _library("peft"):
        import peft
    targets = "all-linear" if spec.matrices == "all" else _ATTENTION[architecture.model_type]
    config = peft.LoraConfig(
        r=spec.rank, lora_alpha=spec.alpha, lora_dropout=spec.dropout, target_modules=targets, bias="none"
    )
    # Not get_peft_model, whose wrapper adds saving and loading, and asks the network for what transformers deprecates.
    changed: nn.Module = peft.LoraModel(model, config, "default")
    return changed


@contextlib.contextmanager
def _library(name: str) -> Iterator[None]:
    """Import a library of the extra, without what it has to say.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise MissingExtra(
            f"a pretrained encoder needs the library {name!r}, which is not installed",
            remedy="Install it: pip install 'yunmo[train,pretrained]'",
        ) from None
    logging.getLogger(name).setLevel(logging.ERROR)
