"""What self-supervised learning sees: HU windows, recipes as data, batched random views."""

from monai_ssl_transfer.views.batched import BatchedViews
from monai_ssl_transfer.views.dictionary import SSLViewsd
from monai_ssl_transfer.views.recipes import ColourJitter, HUJitter, ViewRecipe, recipe
from monai_ssl_transfer.views.windows import (
    BONE,
    CT_MEAN,
    CT_STD,
    LUNG,
    SOFT_TISSUE,
    WIDE,
    HUToChannels,
    HUToChannelsd,
    HUWindow,
    channel_windows,
    channels_count,
    hu_to_channels,
    normalisation,
    source_channels,
)

__all__ = [
    "BONE",
    "CT_MEAN",
    "CT_STD",
    "LUNG",
    "SOFT_TISSUE",
    "WIDE",
    "BatchedViews",
    "ColourJitter",
    "HUJitter",
    "HUToChannels",
    "HUToChannelsd",
    "HUWindow",
    "SSLViewsd",
    "ViewRecipe",
    "channel_windows",
    "channels_count",
    "hu_to_channels",
    "normalisation",
    "recipe",
    "source_channels",
]
