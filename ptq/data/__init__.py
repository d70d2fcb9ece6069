"""Calibration and evaluation data: readers of many forms, one lazy sequence of checked feeds."""

from ptq.data.dataset import DataRequest, Dataset, TensorParser, evenly_spaced
from ptq.data.feeds import Feed, InputSpec, check_feed, hash_feed
from ptq.data.image_options import ImageOptions
from ptq.data.labels import Labels, read_labels, select_labels
from ptq.data.registry import data_forms, data_readers, open_dataset

__all__ = [
    "DataRequest",
    "Dataset",
    "Feed",
    "ImageOptions",
    "InputSpec",
    "Labels",
    "TensorParser",
    "check_feed",
    "data_forms",
    "data_readers",
    "evenly_spaced",
    "hash_feed",
    "open_dataset",
    "read_labels",
    "select_labels",
]
