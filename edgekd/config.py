"""Settings as typed, validated records: a distillation, and how to reach teachers. Of devices: `devices`.

Every record refuses unknown keys, and reports all that is wrong with a file at once.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edgekd.errors import BadSetting
from edgekd.tasks import Task


class Record(BaseModel):
    """Immutable, and no key it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


R = TypeVar("R", bound=Record)


def validated(kind: type[R], values: dict[str, Any], where: object) -> R:
    """Build a record from untrusted values.

    Raises:
        BadSetting: lists every offending key with what is allowed there.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors())
        raise BadSetting(", ".join(problems), where=where) from error


OF_HEADERS = ("heads", "features", "ensemble")
"""Weights of students with a header for every teacher."""
OF_CHUNKS = ("regression", "discriminators", "joined")
"""Weights of students side by side that learn a chunk of the teacher's representation each."""


OF_QUESTIONS = ("asked", "bred", "rivalry", "certainty", "likeness", "smoothing", "jitter")
"""What only a method sets whose questions are chosen before they are asked."""
OF_REFINEMENT = ("refined", "refined_children")
"""What only a method sets whose generator is judged by teachers, and not told which classes to make."""


class Recipe(Record):
    """The weights and the schedule of a data-free distillation. Loss terms with weight 0 are not computed."""

    one_hot: float = Field(ge=0, description="L_oh: cross-entropy to the teacher's own arg-max (DAFL eq. 2)")
    activation: float = Field(ge=0, description="L_a: minus the mean absolute feature (DAFL eq. 3)")
    entropy: float = Field(ge=0, description="L_ie: minus the base-10 entropy of the batch-mean output (DAFL eq. 4)")
    statistics: float = Field(
        ge=0, description="distance of batch to running statistics (after DeepInversion), or their prior where folded"
    )
    momentum: float = Field(
        default=0.0, ge=0, lt=1, description="share of earlier rounds in the batch statistics (Fast-Datafree)"
    )
    adversary: float = Field(ge=0, description="reward for samples on which student and teacher differ (DFAD)")
    temperature: float = Field(gt=0, description="T of the student's Kullback-Leibler loss")
    heads: float = Field(default=0.0, ge=0, description="distance of each header to its teacher (CDFKD-MFS: w_s)")
    features: float = Field(
        default=0.0, ge=0, description="L1 distance of each header's features to its teacher's (CDFKD-MFS: w_f)"
    )
    ensemble: float = Field(default=0.0, ge=0, description="distance of the headers' mean to the teachers' (w_e)")
    regression: float = Field(
        default=0.0, ge=0, description="mean squared error of each student to its chunk, summed (Teacher-Class, FF)"
    )
    discriminators: float = Field(
        default=0.0, ge=0, description="a discriminator with a regression for each student (Teacher-Class, GAN)"
    )
    joined: float = Field(
        default=0.0, ge=0, description="Kullback-Leibler at T of the students' joined logits, for the last layer alone"
    )
    distance: Literal["l1", "kl"] = Field(
        default="l1", description="of heads and ensemble: L1 of logits (CDFKD-MFS) or Kullback-Leibler at T (CDFKD)"
    )
    projection: bool = Field(
        default=False, description="features of other widths are compared through a learned linear map"
    )
    symmetric: bool = Field(
        default=False, description="the adversary rewards all that the student minimises, not heads alone (CDFKD)"
    )
    raw_statistics: bool = Field(
        default=False, description="statistics in the teacher's own units, the first layer five times (CDFKD-MFS)"
    )
    generator_batch: int = Field(ge=2)
    student_batch: int = Field(ge=2)
    generator_steps: int = Field(
        ge=0, description="generator updates per round; 0: the images are another run's, see `edgekd sweep`"
    )
    student_steps: int = Field(ge=1, description="student updates per round")
    share_batch: bool = Field(description="one batch serves both updates, and nothing is replayed (DAFL)")
    fresh: bool = Field(
        default=False, description="student batches are generated anew for each step, and nothing is replayed (DFAD)"
    )
    asked: int = Field(
        default=0, ge=0, description="images asked about in a round, chosen by the student's doubt; 0: all generated"
    )
    bred: float = Field(default=0.0, ge=0, le=1, description="share of the asked that is bred of what was asked before")
    children: int = Field(
        default=0, ge=0, description="images bred of procedural ones and asked about in a round, beside the generated"
    )
    refined: int = Field(
        default=0, ge=0, description="steps that generated images take down the generator's loss before they are kept"
    )
    refined_children: int = Field(
        default=0, ge=0, description="the same of bred images, which every second round are kept in their place"
    )
    doubted: float = Field(default=1.0, gt=0, le=1, description="the student's confidence that ends asking (QEDG: 0.7)")
    rivals: int = Field(
        default=0,
        ge=0,
        le=7,
        description="more students that learn what the first does; the best is kept, see `chosen`",
    )
    rivalry: float = Field(
        default=0.0, ge=0, description="reward for images on which student and rivals differ (DisGUIDE)"
    )
    certainty: float = Field(default=0.0, ge=0, description="penalty on images the student is too sure of (QEDG)")
    likeness: float = Field(
        default=0.0, ge=0, description="penalty on generated images of one class that the student answers alike (QEDG)"
    )
    mistakes: float = Field(
        default=1.0, ge=1, description="weight of images that the student calls otherwise than the teacher (QEDG)"
    )
    smoothing: float = Field(
        default=0.0, ge=0, le=1, description="share of a bare label that its neighbours in the bank decide"
    )
    jitter: float = Field(
        default=0.0,
        ge=0,
        lt=0.5,
        description="share of its side by which an image of a bare label is moved once it was shown often",
    )
    bank: int = Field(ge=0, description="generated images kept for replay, with the teacher's answers")
    prior: int = Field(ge=0, description="procedural images the teacher is asked about before training")
    prior_share: float = Field(ge=0, lt=1, description="their share of student batches, on average over the run")
    prior_fall: float = Field(
        default=0.0, ge=0, le=1, description="by what part of it that share is larger at first, and smaller at last"
    )
    prior_mixed: bool = Field(
        default=False, description="the more of those with pixels such as the teacher's normalization tells, if it does"
    )
    fit: bool = Field(
        default=False, description="what is not set suits the images: smaller batches above 32x32, and rows of a table"
    )
    latent: int = Field(ge=1)
    generator_width: int = Field(ge=1)
    output: Literal["tanh", "soft", "sigmoid"] = Field(
        description="the generator's last layer: DAFL's tanh, one normalized before so that it shades, NAYER's sigmoid"
    )
    noisy: bool = Field(
        default=False, description="latent vectors are labels sent through a layer re-drawn each round (NAYER)"
    )
    generator_life: int = Field(default=0, ge=0, description="rounds after which the generator begins anew; 0: never")
    revivals: int = Field(default=0, ge=0, description="times that a generator which collapsed may begin anew")
    keep: Literal["every", "best"] = Field(
        default="every", description="which of a round's generated batches go into the bank"
    )
    shift: int = Field(
        default=0, ge=0, description="pixels by which images are moved before they are shown; the teacher is asked"
    )
    mirror: bool = Field(
        default=False, description="half of the images are mirrored before they are shown; the teacher is asked"
    )
    warm_up: float = Field(
        default=0.0, ge=0, lt=1, description="share of the run with neither adversary nor student steps"
    )
    frozen_student: bool = Field(
        default=False, description="its batch-norm keeps running statistics while the generator learns"
    )
    generator_rate: float = Field(gt=0)
    generator_beta: float = Field(ge=0, lt=1, description="first moment of the generator's Adam")
    student_optimizer: Literal["adam", "muon", "sgd"]
    student_rate: float = Field(gt=0)
    inherit: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of student_rate for a student that begins with its teacher's layers, where they line up; "
        "0: all begin at random",
    )
    student_decay: float = Field(default=1e-4, ge=0, description="weight decay of sgd")
    anneal: Literal["none", "student", "both"] = Field(description="learning rates that fall to zero, as a half cosine")

    @model_validator(mode="after")
    def _student_has_a_diet(self) -> Recipe:
        if self.share_batch and not self.generator_steps:
            raise ValueError("share_batch needs generator_steps")
        if self.fresh and (self.share_batch or self.bank or self.prior or self.shift or self.mirror):
            raise ValueError("fresh batches go with neither share_batch, bank, prior, shift nor mirror")
        if not (self.share_batch or self.fresh) and self.bank < self.student_batch:
            raise ValueError("bank must hold at least student_batch images unless share_batch or fresh is set")
        if (self.prior == 0) != (self.prior_share == 0):
            raise ValueError("prior and prior_share are either both zero or both set")
        return self

    def refuse(self, *names: str) -> None:
        """Raise `BadSetting` where weights are set that a method does not know."""
        if told := [name for name in names if getattr(self, name)]:
            raise BadSetting("this method has none", where=f"recipe: {', '.join(told)}", allowed="0")


class DistillSettings(Record):
    """Everything that decides the outcome of a distillation, besides the teacher."""

    method: str = "edgekd"
    recipe: Recipe
    fixed: tuple[str, ...] = Field(default=(), description="what of the recipe was told: neither fitted nor replaced")
    student: str = "auto"
    width: float | None = Field(default=None, gt=0, le=16)
    headers: Literal["shared", "plain"] | None = Field(
        default=None, description="of methods with a header for every teacher: what it reads; None: the method's own"
    )
    students: int | None = Field(
        default=None, ge=1, le=64, description="side by side, of methods that cut the teacher's representation"
    )
    chunks: Literal["contiguous", "balanced"] | None = Field(
        default=None, description="how it is cut: into runs (None), or into chunks of equal variance"
    )
    representation: str | None = Field(default=None, description="tensor to be cut; None: input of the last layer")
    added_to: str | None = Field(default=None, description="run whose students are kept as they are; one more learns")
    class_order: tuple[tuple[int, ...] | None, ...] | None = Field(
        default=None, description="for each teacher, which of its columns is class 0, 1, …; None: as they are"
    )
    minutes: float | None = Field(default=None, gt=0)
    steps: int | None = Field(default=None, ge=1)
    clock: Literal["wall", "cpu"] = Field(
        default="wall",
        description="what minutes are counted in; cpu: of all this process's threads, whatever else runs",
    )
    seed: int = Field(default=0, ge=0, lt=2**63)
    threads: int | None = Field(default=None, ge=1)
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="where to train; auto: a CUDA GPU where there is one"
    )
    samples: str | None = Field(
        default=None,
        description="unlabelled images of one's own, a folder or .npz: asked about first, or learned from alone",
    )
    input_shape: tuple[int, int, int] | None = Field(
        default=None, description="channels, height, width; of a table the number of features, 1, 1"
    )
    input_range: tuple[float, float] | None = None
    bounds: tuple[tuple[float, float], ...] | None = Field(
        default=None, description="lowest and highest value of each feature of a table, instead of input_range"
    )
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    layout: Literal["NCHW", "NHWC"] | None = None
    task: Task | None = Field(default=None, description="what the teacher answers; None: as it is recognised")
    teacher_accuracy: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="on real images, as its maker tells; for an estimate of the student's alone",
    )
    access: Literal["auto", "gradient", "scores", "labels"] = Field(
        default="auto", description="how much of the teacher is used; auto: gradient where there is one, else scores"
    )
    gradient: Literal["exact", "estimate"] = Field(
        default="exact", description="estimate: by finite differences, from answers alone"
    )
    directions: int = Field(default=8, ge=1, description="of an estimate: more questions about each generated image")
    coarse: int = Field(default=4, ge=1, description="of an estimate: side of the squares of pixels that move together")
    max_queries: int | None = Field(
        default=None, ge=1, description="samples to ask a query-only teacher about, at most; may grow on resume"
    )

    @model_validator(mode="after")
    def _one_clock(self) -> DistillSettings:
        if (self.minutes is None) == (self.steps is None):
            raise ValueError("give either minutes or steps")
        if self.input_range is not None and self.input_range[0] >= self.input_range[1]:
            raise ValueError("input_range must be LOW,HIGH with LOW below HIGH")
        if any(low >= high for low, high in self.bounds or ()):
            raise ValueError("bounds must be pairs of LOW and HIGH with LOW below HIGH")
        return self


class Reach(Record):
    """How teachers outside this process may be reached. It is no part of a run's record: say it again on resume.

    It names secrets and holds none: `token_env` and `headers` are names of environment variables.
    """

    token_env: str | None = Field(default=None, description="variable whose value goes into Authorization: Bearer")
    headers: dict[str, str] = Field(default={}, description="HTTP header to the variable that holds its value")
    timeout: float = Field(default=60.0, gt=0, description="seconds to wait for one answer")
    patience: float = Field(default=120.0, ge=0, description="seconds to go on trying while a server does not answer")
    batch: int | None = Field(default=None, ge=1, description="samples in one request, at most")
    trust_callable: bool = Field(default=False, description="run the code that python:module:function names")
