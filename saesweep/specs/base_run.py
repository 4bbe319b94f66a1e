"""One fully specified training run, in SAELens' field names and with SAELens' defaults.

Defaults that differ from SAELens 6.54 are listed in docs/defaults.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, SerializeAsAny

from saesweep.specs.architectures import SAESpec, all_listed, architectures, spec_class
from saesweep.specs.datasets import DatasetSpec, WeightedDatasetSpec
from saesweep.specs.joint_hooks import as_name
from saesweep.specs.logger import LoggerSpec
from saesweep.specs.model import Spec
from saesweep.specs.model_loading import arguments_that_run_code, refusal
from saesweep.specs.run_problems import run_problems
from saesweep.specs.synthetic import SYNTHETIC, SyntheticSpec
from saesweep.specs.units import DType, Duration, Positions, Steps, TokenCount

_GROUPS = {
    "model and data": "model_name",
    "activation stream": "n_batches_in_buffer",
    "device and precision": "device",
    "optimisation": "training_tokens",
    "dead latents, evaluation, output": "dead_feature_window",
}
"""Title of a group of fields -> its first one; it ends where the next begins."""


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def parse_sae(value: Any) -> SAESpec:
    """Return the architecture's own configuration from a mapping with an `architecture` key.

    Raises:
        ValueError: The architecture is not registered.
    """
    if isinstance(value, SAESpec):
        return value
    if not isinstance(value, dict):
        raise ValueError("must be a mapping of the SAE's fields")
    name = value.get("architecture", "standard")
    if name not in architectures():
        raise ValueError(f"unknown architecture {name!r}; known: {all_listed()}")
    return spec_class(name).model_validate(value)


class BaseRun(Spec):
    """A training run. Every field can be set under `base`; many can be searched under `space`."""

    # --- model and data
    model_name: str | None = "gelu-2l"
    """Hub id, local folder or `builtin:tiny-lm`; null for `dataset_path: builtin:synthetic`, which has no model."""
    model_class_name: str = "AutoModelForCausalLM"
    """A model class of transformers (such as `AutoModel`) or `TransformerBridge` (TransformerLens), SAELens' `HookedTransformer`."""
    hook_name: Annotated[str, BeforeValidator(as_name, json_schema_input_type=str | list[str])] = (
        "blocks.0.hook_mlp_out"
    )
    """A module of a Hugging Face model (`model.layers.3` its output, `model.layers.3:input` its input), a TransformerLens hook point, or a list."""
    hook_name_out: str | None = None
    """Hook whose activations a transcoder reconstructs from those of `hook_name`. SAEs beside transcoders train on this one."""
    hook_head_index: int | None = Field(None, ge=0)
    """Attention head to read, for hook points with a head axis."""
    dataset_path: str = ""
    """Hub id, local file, folder or glob, `builtin:python-docs` or `builtin:synthetic`."""
    dataset_name: str | None = None
    """Configuration of the dataset, such as `sample-10BT`."""
    split: str = "train"
    """Split of the dataset, such as `train`, `train[:10%]` (not of a stream) or `train+validation`."""
    data_files: Annotated[tuple[str, ...] | None, BeforeValidator(_tuple)] = None
    """Only these files (or globs) of the dataset."""
    data_dir: str | None = None
    """Only this folder of the dataset."""
    column_name: str | None = None
    """Column with the text, the conversations or the token ids; found by its usual names when left out."""
    datasets: Annotated[tuple[WeightedDatasetSpec, ...], BeforeValidator(_tuple)] = ()
    """Several datasets in one stream, in place of `dataset_path` and what belongs to it: a list of mappings, each with a `weight`."""
    dataset_trust_remote_code: bool = False
    """Refused: datasets 4 and newer run no remote code."""
    streaming: bool = True
    """Read a Hub dataset as a stream instead of downloading it first."""
    is_dataset_tokenized: bool | None = None
    """The rows hold token ids (`input_ids` or `tokens`); detected when left out."""
    use_chat_formatting: bool = False
    """Format conversations with the tokenizer's chat template; plain text counts as one message of a user."""
    context_size: int = Field(128, ge=2)
    """Tokens per context."""
    prepend_bos: bool = True
    """Begin every context with the BOS token."""
    exclude_special_tokens: bool | Annotated[tuple[int, ...], BeforeValidator(_tuple)] = False
    """Leave activations at special tokens (or at these token ids) out of training and evaluation."""
    sequence_separator_token: int | Literal["bos", "eos", "sep"] | None = "bos"
    """Token between two documents of one context."""
    disable_concat_sequences: bool = False
    """One document per context; shorter documents are dropped, longer ones cut."""
    max_activation_norm_multiple: float | None = Field(None, gt=1)
    """Leave out activations whose norm is more than this many times the median norm (attention sinks), in training and evaluation."""
    seqpos_slice: Positions = (None,)
    """Positions of each context to train on, as the arguments of Python's `slice`."""
    use_cached_activations: bool = False
    """Train from activations on disk, without the language model unless the objective names a cross-entropy metric."""
    cached_activations_path: str | None = None
    """Folder that `saesweep cache-activations` writes and `use_cached_activations` reads, or a Hub id; SAELens' caches are read too."""
    from_pretrained_path: str | None = None
    """Start from the weights of this SAE: an exported folder, a checkpoint of SAELens, a Hub id, or whatever else `saesweep eval` takes."""
    model_kwargs: dict[str, Any] = {}
    """Arguments of the model's forward call."""
    model_from_pretrained_kwargs: dict[str, Any] | None = None
    """Arguments of the model's loading call, such as {dtype: bfloat16}."""
    allow_code_execution: bool = False
    """Accept loading arguments that let files of the model run code here, such as `trust_remote_code: true` or `weights_only: false`."""

    # --- activation stream
    n_batches_in_buffer: int = Field(20, ge=1)
    """SAELens' buffer size: this many prompts x `context_size` tokens. `buffer_tokens` says it plainly and wins."""
    buffer_tokens: TokenCount | None = Field(None, ge=1)
    """Activations in the shuffle window. When left out: `n_batches_in_buffer` x `context_size`, but at least 8 training batches."""
    neighbour_pairs: bool = False
    """Serve each two neighbouring tokens one after the other, for losses that compare them (`sae.temporal_coefficient`)."""
    store_batch_size_prompts: int = Field(32, ge=1)
    """Contexts per forward pass of the language model. A CPU works through them in pieces of 1,024 tokens."""
    activations_mixing_fraction: float = Field(0.5, ge=0, le=1)
    """SAELens' share of the buffer kept back at each refill. The window here slides, so only the default is accepted."""
    prefetch_llm_batches: bool | Annotated[int, Field(ge=0)] = False
    """Forward passes that the language model runs ahead on its own thread; true: those that refill the window. Changes no batch."""
    n_batches_for_norm_estimate: int = Field(1000, ge=1)
    """At most this many batches, from the first shuffle window, estimate the activation scale."""

    # --- device and precision
    device: str = "auto"
    """`auto` (CUDA, then MPS, then CPU), or a torch device. SAELens' default is cpu."""
    llm_device: str | None = None
    """Device of the language model; `device` when left out."""
    act_store_device: str | None = None
    """Device of the shuffle window; `device` when left out."""
    dtype: DType = "float32"
    """Type of the activations that the SAEs train on; the model's own type is kept in the shuffle window."""
    autocast: bool = False
    """Train in bfloat16 products, with fp32 master weights; the topk family keeps its fp32 sparse kernels (on a GPU where Triton works)."""
    autocast_lm: bool = False
    """Run the language model in bfloat16."""
    compile_llm: bool = False
    """Compile the language model's blocks; not those that a hook looks into."""
    llm_compilation_mode: Literal["default", "max-autotune-no-cudagraphs"] | None = None
    """Mode of torch.compile. Modes with CUDA graphs are left out: they overwrite activations that are still to be read."""
    compile_sae: bool = False
    """Compile the SAE step where the reference path trains it (`cohort.kernels: reference`, most of `autocast`), not the sparse kernels."""
    sae_compilation_mode: Literal["default", "max-autotune-no-cudagraphs"] | None = None
    """Mode of torch.compile for them. Modes with CUDA graphs are left out: they overwrite gradients that are still to be read."""
    seed: int = Field(42, ge=0)
    """Seed of the data order and of the initialisation."""

    # --- optimisation
    training_tokens: TokenCount = Field(2_000_000, ge=1)
    """Activations that each trial trains on."""
    train_batch_size_tokens: TokenCount = Field(4096, ge=1)
    """Activations per training step."""
    lr: float = Field(3e-4, gt=0)
    """Peak learning rate."""
    lr_scheduler_name: Literal["constant", "cosineannealing", "cosineannealingwarmrestarts"] = "constant"
    """Course of the learning rate between warm-up and decay."""
    lr_warm_up_steps: Steps = Duration(0)
    """Linear warm-up: steps, tokens (`5Mtok`) or share of the run (`5%`)."""
    lr_decay_steps: Steps = Duration(0)
    """Linear decay to 0 at the end: steps, tokens (`5Mtok`) or share of the run (`20%`)."""
    lr_end: float | None = Field(None, ge=0)
    """Where the cosine ends; lr / 10 when left out."""
    n_restart_cycles: int = Field(1, ge=1)
    """Cycles of `cosineannealingwarmrestarts`."""
    adam_beta1: float = Field(0.9, ge=0, lt=1)
    """Adam's decay of the gradient average."""
    adam_beta2: float = Field(0.999, ge=0, lt=1)
    """Adam's decay of the squared-gradient average."""

    # --- dead latents, evaluation, output
    dead_feature_window: Steps = Duration(1000)
    """Auxiliary losses count a latent as dead when it has not fired for this long; at most a quarter of the run for the share reported."""
    feature_sampling_window: Steps = Duration(2000)
    """Window of training over which the firing frequencies of snapshots are counted; those of exported SAEs are held-out."""
    eval_batch_size_prompts: int | None = Field(None, ge=1)
    """Contexts per evaluation forward; `store_batch_size_prompts` when left out."""
    n_checkpoints: int = Field(0, ge=0)
    """Snapshots kept of each trial, evenly spaced in its tokens, in SAELens' training form. Resuming needs none."""
    checkpoint_path: str | None = None
    """Folder of those snapshots, `<trial>/<tokens>`; `snapshots/<tokens>` in the trial's folder when left out."""
    save_final_checkpoint: bool = False
    """Keep a snapshot in training form, `final_<tokens>`, of every trial that trains to its end."""
    resume_from_checkpoint: str | None = None
    """SAELens' resume; here the same command resumes."""
    output_path: str | None = None
    """SAELens' output folder; here `--run-dir`."""
    verbose: bool = True
    """Whether `saesweep train` shows its progress; `--display` says how."""

    synthetic: SyntheticSpec = SyntheticSpec()
    """The true features of `dataset_path: builtin:synthetic`."""
    logger: LoggerSpec = LoggerSpec()
    """Weights & Biases."""
    sae: Annotated[SerializeAsAny[SAESpec], BeforeValidator(parse_sae)]
    """The SAE: its architecture, widths and that architecture's own fields."""

    _written: dict[str, Any] = PrivateAttr(default_factory=dict)
    """Fields that hold values of environment variables, as the experiment writes them, by dotted path."""

    def with_references(self, written: Mapping[str, Any]) -> BaseRun:
        """Return the same run, which knows how some of its fields (by dotted path) are to be written."""
        found = self.model_copy()
        found._written = dict(written)
        return found

    def as_written(self, dumped: Mapping[str, Any]) -> dict[str, Any]:
        """Return a dump of this run, or a part of one, with references in place of the values they stand for."""
        found = dict(dumped)
        for path, value in self._written.items():
            block, _, name = path.rpartition(".")
            if not block and name in found:
                found[name] = value
            elif block and name in found.get(block, {}):
                found[block] = {**found[block], name: value}
        return found

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Show references in place of the values they stand for."""
        hidden = {path.partition(".")[0] for path in self._written}
        for name, value in super().__repr_args__():
            yield name, "(from the environment)" if name in hidden else value

    @classmethod
    def groups(cls) -> dict[str, tuple[str, ...]]:
        """Return the fields by what they are about, in order, for `--help`: `sae`, `logger` and `synthetic` are blocks."""
        names = [name for name in cls.model_fields if name not in ("sae", "logger", "synthetic")]
        starts = [names.index(first) for first in _GROUPS.values()]
        return {
            title: tuple(names[start:end])
            for title, start, end in zip(_GROUPS, starts, [*starts[1:], len(names)], strict=True)
        }

    def of_dataset(self, dataset: DatasetSpec) -> BaseRun:
        """Return the run with one dataset in place of its own."""
        fields = {name: getattr(dataset, name) for name in DatasetSpec.model_fields}
        return self.model_copy(update={**fields, "datasets": ()})

    @property
    def by_dataset(self) -> tuple[tuple[float, BaseRun], ...]:
        """The share of the tokens and the run of each dataset by itself; of the run itself where it is no mixture."""
        if not self.datasets:
            return ((1.0, self),)
        total = sum(each.weight for each in self.datasets)
        return tuple((each.weight / total, self.of_dataset(each)) for each in self.datasets)

    @property
    def dataset_label(self) -> str:
        """The dataset, or the mixture with its shares, for people."""
        if not self.datasets:
            return self.dataset_path
        return ", ".join(f"{share:.3g} of {run.dataset_path}" for share, run in self.by_dataset)

    @property
    def total_steps(self) -> int:
        """Training steps of the run."""
        return max(1, self.training_tokens // self.train_batch_size_tokens)

    def to_steps(self, duration: Duration) -> int:
        """Return a duration of this run in steps."""
        return duration.to_steps(self.total_steps, self.train_batch_size_tokens)

    @property
    def window_tokens(self) -> int:
        """Activations in the shuffle window."""
        if self.buffer_tokens is not None:
            return self.buffer_tokens
        return max(self.n_batches_in_buffer * self.context_size, 8 * self.train_batch_size_tokens)

    @property
    def keeps_snapshots(self) -> bool:
        """Snapshots in training form are kept, on the way or at the end."""
        return self.n_checkpoints > 0 or self.save_final_checkpoint

    @property
    def snapshot_steps(self) -> tuple[int, ...]:
        """Steps after which `n_checkpoints` snapshots are kept: evenly spaced, neither the start nor the end."""
        parts = self.n_checkpoints + 1
        return tuple(round(part * self.total_steps / parts) for part in range(1, parts))

    @property
    def refused_arguments(self) -> list[str]:
        """A message for each loading argument that would let code run where `allow_code_execution` is not set."""
        if self.allow_code_execution:
            return []
        found = arguments_that_run_code(self.model_from_pretrained_kwargs)
        return [refusal(argument, reason) for argument, reason in found.items()]

    @property
    def has_next_tokens(self) -> bool:
        """Whether any position that `seqpos_slice` selects has a next token in its context: the last one has none."""
        return any(at + 1 < self.context_size for at in range(self.context_size)[slice(*self.seqpos_slice)])

    @property
    def target_hook(self) -> str:
        """The hook whose activations are reconstructed: the one that is read, but for transcoders."""
        return self.hook_name if self.hook_name_out is None else self.hook_name_out

    @property
    def is_synthetic(self) -> bool:
        """The activations come from known features and no language model."""
        return self.dataset_path == SYNTHETIC

    def problems(self) -> list[tuple[str, str]]:
        """Return cross-field mistakes as (dotted field, message), static: nothing is read from disk or network."""
        return [*run_problems(self), *((f"sae.{field}", message) for field, message in self.sae.problems())]
