"""robustmm: multimodal models that keep working while modalities go missing.

The names below are the promise to plugin authors; everything else may change between versions. They are imported on
first use, so that ``robustmm --help`` needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

#: Raised when a change of the public names breaks plugins; a plugin may state ``ROBUSTMM_PLUGIN_API`` to be checked.
PLUGIN_API = 1

_HOME = {
    "robustmm.adaptation.adapter": (
        "Adapter",
        "Predict",
    ),
    "robustmm.audio": (
        "LogMel",
        "read_wav",
    ),
    "robustmm.balancing.balancer": (
        "Balancer",
        "EpochPlan",
        "Update",
        "total",
    ),
    "robustmm.balancing.epoch": (
        "EpochView",
        "Trial",
    ),
    "robustmm.balancing.view": (
        "StepView",
        "added",
    ),
    "robustmm.corruption": (
        "Corruption",
        "Spread",
    ),
    "robustmm.data.dataset": (
        "ArrayDataset",
        "DataSplits",
        "Dataset",
    ),
    "robustmm.data.transforms": (
        "Augmentation",
        "JointTransform",
        "Role",
    ),
    "robustmm.distributed": (
        "all_reduce_sum",
        "gather_equal",
    ),
    "robustmm.engine.callbacks": (
        "Callback",
        "RunInfo",
    ),
    "robustmm.engine.optim": (
        "Schedule",
        "ScheduleValues",
    ),
    "robustmm.errors": (
        "CheckpointError",
        "ConfigError",
        "DataError",
        "PluginError",
        "RobustmmError",
        "RunFailed",
        "ShapeError",
        "did_you_mean",
    ),
    "robustmm.hookspecs": ("hookimpl",),
    "robustmm.imports": ("import_torchvision",),
    "robustmm.losses.combination_regularisation": (
        "masked_mean",
        "outer_mean",
    ),
    "robustmm.losses.evidential": (
        "belief_conflict",
        "combine_evidence",
        "dirichlet_kl",
        "dirichlet_uncertainty",
        "evidential_loss",
    ),
    "robustmm.losses.gaussian_kl": ("gaussian_kl",),
    "robustmm.losses.histogram_divergence": ("histogram_divergence",),
    "robustmm.losses.knowledge_distillation": (
        "logit_distillation",
        "similarity_distillation",
        "soft_target_distillation",
    ),
    "robustmm.losses.margin_aware_distillation": (
        "margin_aware_distillation",
        "margin_weights",
    ),
    "robustmm.losses.maximum_mean_discrepancy": (
        "joint_maximum_mean_discrepancy",
        "maximum_mean_discrepancy",
    ),
    "robustmm.losses.normal_inverse_gamma": (
        "NormalInverseGamma",
        "combine_nig",
        "nig_nll",
        "nig_regulariser",
    ),
    "robustmm.losses.precision": ("full_precision",),
    "robustmm.losses.ranking": (
        "confidence_ranking",
        "normalised_history",
    ),
    "robustmm.losses.reliable_confidence": (
        "class_balance",
        "confidence_adaptation",
    ),
    "robustmm.losses.student_t": (
        "StudentT",
        "pack_student_t",
        "split_student_t",
        "student_t_nll",
    ),
    "robustmm.masks": (
        "CombinationSampler",
        "all_combinations",
        "combination_name",
        "combination_table",
        "draw_bernoulli",
        "draw_cardinality",
        "draw_for_batch",
        "draw_from",
        "draw_stratified",
        "draw_uniform",
        "keep_one",
        "parse_combination",
        "presence_of",
        "where_present",
    ),
    "robustmm.methods.decision": (
        "Decision",
        "DecisionMethod",
        "mean_over_present",
    ),
    "robustmm.methods.method": (
        "Blueprint",
        "Evaluate",
        "FitContext",
        "Method",
    ),
    "robustmm.methods.probes": (
        "UnimodalLogits",
        "split_logits",
        "unimodal_logits",
    ),
    "robustmm.metrics.calibration": (
        "brier_score",
        "negative_log_likelihood",
    ),
    "robustmm.metrics.confusion": ("predicted_class",),
    "robustmm.metrics.metric": ("Metric",),
    "robustmm.metrics.ranking": ("aurc",),
    "robustmm.models.encoder": (
        "Encoder",
        "pooled",
    ),
    "robustmm.models.fusion": ("Fusion",),
    "robustmm.models.head": ("Head",),
    "robustmm.models.missing": ("MissingPolicy",),
    "robustmm.models.modes": ("evaluating",),
    "robustmm.models.scaler": ("Scaler",),
    "robustmm.models.stagewise": ("StagewiseTrunk",),
    "robustmm.models.trunk": (
        "Features",
        "Trunk",
        "TrunkParts",
        "LateTrunk",
    ),
    "robustmm.predictor": (
        "Prediction",
        "Predictor",
        "load",
    ),
    "robustmm.registry": (
        "Component",
        "Options",
        "Prepare",
        "Track",
    ),
    "robustmm.seeding": (
        "derive_seed",
        "generator_for",
    ),
    "robustmm.tasks.classification": ("ClassificationTask",),
    "robustmm.tasks.regression": ("RegressionTask",),
    "robustmm.tasks.segmentation": ("SegmentationTask",),
    "robustmm.tasks.task": (
        "Metrics",
        "Rows",
        "Task",
    ),
    "robustmm.types": (
        "Batch",
        "Clock",
        "Combination",
        "FeatureEdit",
        "LossTerm",
        "Modality",
        "Output",
        "Reading",
        "Sample",
        "Scaling",
        "VOID",
    ),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

if TYPE_CHECKING:
    from robustmm.adaptation.adapter import Adapter as Adapter
    from robustmm.adaptation.adapter import Predict as Predict
    from robustmm.audio import LogMel as LogMel
    from robustmm.audio import read_wav as read_wav
    from robustmm.balancing.balancer import Balancer as Balancer
    from robustmm.balancing.balancer import EpochPlan as EpochPlan
    from robustmm.balancing.balancer import Update as Update
    from robustmm.balancing.balancer import total as total
    from robustmm.balancing.epoch import EpochView as EpochView
    from robustmm.balancing.epoch import Trial as Trial
    from robustmm.balancing.view import StepView as StepView
    from robustmm.balancing.view import added as added
    from robustmm.corruption import Corruption as Corruption
    from robustmm.corruption import Spread as Spread
    from robustmm.data.dataset import ArrayDataset as ArrayDataset
    from robustmm.data.dataset import Dataset as Dataset
    from robustmm.data.dataset import DataSplits as DataSplits
    from robustmm.data.transforms import Augmentation as Augmentation
    from robustmm.data.transforms import JointTransform as JointTransform
    from robustmm.data.transforms import Role as Role
    from robustmm.distributed import all_reduce_sum as all_reduce_sum
    from robustmm.distributed import gather_equal as gather_equal
    from robustmm.engine.callbacks import Callback as Callback
    from robustmm.engine.callbacks import RunInfo as RunInfo
    from robustmm.engine.optim import Schedule as Schedule
    from robustmm.engine.optim import ScheduleValues as ScheduleValues
    from robustmm.errors import CheckpointError as CheckpointError
    from robustmm.errors import ConfigError as ConfigError
    from robustmm.errors import DataError as DataError
    from robustmm.errors import PluginError as PluginError
    from robustmm.errors import RobustmmError as RobustmmError
    from robustmm.errors import RunFailed as RunFailed
    from robustmm.errors import ShapeError as ShapeError
    from robustmm.errors import did_you_mean as did_you_mean
    from robustmm.hookspecs import hookimpl as hookimpl
    from robustmm.imports import import_torchvision as import_torchvision
    from robustmm.losses.combination_regularisation import masked_mean as masked_mean
    from robustmm.losses.combination_regularisation import outer_mean as outer_mean
    from robustmm.losses.evidential import belief_conflict as belief_conflict
    from robustmm.losses.evidential import combine_evidence as combine_evidence
    from robustmm.losses.evidential import dirichlet_kl as dirichlet_kl
    from robustmm.losses.evidential import dirichlet_uncertainty as dirichlet_uncertainty
    from robustmm.losses.evidential import evidential_loss as evidential_loss
    from robustmm.losses.gaussian_kl import gaussian_kl as gaussian_kl
    from robustmm.losses.histogram_divergence import histogram_divergence as histogram_divergence
    from robustmm.losses.knowledge_distillation import logit_distillation as logit_distillation
    from robustmm.losses.knowledge_distillation import similarity_distillation as similarity_distillation
    from robustmm.losses.knowledge_distillation import soft_target_distillation as soft_target_distillation
    from robustmm.losses.margin_aware_distillation import margin_aware_distillation as margin_aware_distillation
    from robustmm.losses.margin_aware_distillation import margin_weights as margin_weights
    from robustmm.losses.maximum_mean_discrepancy import (
        joint_maximum_mean_discrepancy as joint_maximum_mean_discrepancy,
    )
    from robustmm.losses.maximum_mean_discrepancy import maximum_mean_discrepancy as maximum_mean_discrepancy
    from robustmm.losses.normal_inverse_gamma import NormalInverseGamma as NormalInverseGamma
    from robustmm.losses.normal_inverse_gamma import combine_nig as combine_nig
    from robustmm.losses.normal_inverse_gamma import nig_nll as nig_nll
    from robustmm.losses.normal_inverse_gamma import nig_regulariser as nig_regulariser
    from robustmm.losses.precision import full_precision as full_precision
    from robustmm.losses.ranking import confidence_ranking as confidence_ranking
    from robustmm.losses.ranking import normalised_history as normalised_history
    from robustmm.losses.reliable_confidence import class_balance as class_balance
    from robustmm.losses.reliable_confidence import confidence_adaptation as confidence_adaptation
    from robustmm.losses.student_t import StudentT as StudentT
    from robustmm.losses.student_t import pack_student_t as pack_student_t
    from robustmm.losses.student_t import split_student_t as split_student_t
    from robustmm.losses.student_t import student_t_nll as student_t_nll
    from robustmm.masks import CombinationSampler as CombinationSampler
    from robustmm.masks import all_combinations as all_combinations
    from robustmm.masks import combination_name as combination_name
    from robustmm.masks import combination_table as combination_table
    from robustmm.masks import draw_bernoulli as draw_bernoulli
    from robustmm.masks import draw_cardinality as draw_cardinality
    from robustmm.masks import draw_for_batch as draw_for_batch
    from robustmm.masks import draw_from as draw_from
    from robustmm.masks import draw_stratified as draw_stratified
    from robustmm.masks import draw_uniform as draw_uniform
    from robustmm.masks import keep_one as keep_one
    from robustmm.masks import parse_combination as parse_combination
    from robustmm.masks import presence_of as presence_of
    from robustmm.masks import where_present as where_present
    from robustmm.methods.decision import Decision as Decision
    from robustmm.methods.decision import DecisionMethod as DecisionMethod
    from robustmm.methods.decision import mean_over_present as mean_over_present
    from robustmm.methods.method import Blueprint as Blueprint
    from robustmm.methods.method import Evaluate as Evaluate
    from robustmm.methods.method import FitContext as FitContext
    from robustmm.methods.method import Method as Method
    from robustmm.methods.probes import UnimodalLogits as UnimodalLogits
    from robustmm.methods.probes import split_logits as split_logits
    from robustmm.methods.probes import unimodal_logits as unimodal_logits
    from robustmm.metrics.calibration import brier_score as brier_score
    from robustmm.metrics.calibration import negative_log_likelihood as negative_log_likelihood
    from robustmm.metrics.confusion import predicted_class as predicted_class
    from robustmm.metrics.metric import Metric as Metric
    from robustmm.metrics.ranking import aurc as aurc
    from robustmm.models.encoder import Encoder as Encoder
    from robustmm.models.encoder import pooled as pooled
    from robustmm.models.fusion import Fusion as Fusion
    from robustmm.models.head import Head as Head
    from robustmm.models.missing import MissingPolicy as MissingPolicy
    from robustmm.models.modes import evaluating as evaluating
    from robustmm.models.scaler import Scaler as Scaler
    from robustmm.models.stagewise import StagewiseTrunk as StagewiseTrunk
    from robustmm.models.trunk import Features as Features
    from robustmm.models.trunk import LateTrunk as LateTrunk
    from robustmm.models.trunk import Trunk as Trunk
    from robustmm.models.trunk import TrunkParts as TrunkParts
    from robustmm.predictor import Prediction as Prediction
    from robustmm.predictor import Predictor as Predictor
    from robustmm.predictor import load as load
    from robustmm.registry import Component as Component
    from robustmm.registry import Options as Options
    from robustmm.registry import Prepare as Prepare
    from robustmm.registry import Track as Track
    from robustmm.seeding import derive_seed as derive_seed
    from robustmm.seeding import generator_for as generator_for
    from robustmm.tasks.classification import ClassificationTask as ClassificationTask
    from robustmm.tasks.regression import RegressionTask as RegressionTask
    from robustmm.tasks.segmentation import SegmentationTask as SegmentationTask
    from robustmm.tasks.task import Metrics as Metrics
    from robustmm.tasks.task import Rows as Rows
    from robustmm.tasks.task import Task as Task
    from robustmm.types import VOID as VOID
    from robustmm.types import Batch as Batch
    from robustmm.types import Clock as Clock
    from robustmm.types import Combination as Combination
    from robustmm.types import FeatureEdit as FeatureEdit
    from robustmm.types import LossTerm as LossTerm
    from robustmm.types import Modality as Modality
    from robustmm.types import Output as Output
    from robustmm.types import Reading as Reading
    from robustmm.types import Sample as Sample
    from robustmm.types import Scaling as Scaling


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'robustmm' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted([*_MODULE_OF, "PLUGIN_API", "__version__"])
