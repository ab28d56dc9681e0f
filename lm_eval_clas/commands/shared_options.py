"""Options that several commands have, so that they are told in the same words."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from lm_eval_clas.commands.application import number_option, path_option


class PairLanguage(str, Enum):
    """Which language counts where a task's name has two."""

    target = "target"
    source = "source"
    off = "off"


# The tasks.
PairOption = Annotated[PairLanguage, typer.Option(help="Which language counts where a task's name has two, as in hf-clas.")]

# The model, and how it is run.
ModelOption = Annotated[str, typer.Option(help="Hugging Face model: Hub id or local path.")]
DeviceOption = Annotated[str | None, typer.Option(help="cuda, cuda:0, cpu, mps; default: the first accelerator.")]
BatchSizeOption = Annotated[int, typer.Option(help="Texts in a batch.", min=1)]
MaxTokensOption = Annotated[int, typer.Option(help="Longer texts are cut at the end.", min=1)]

# From a profile to masks.
StatisticOption = Annotated[str, typer.Option(help="signed-mean, mean-abs or share-positive.")]
TokensOption = Annotated[str, typer.Option(help="all, or last: the last token of each text only.")]
ThresholdOption = Annotated[float, number_option("A neuron is active where its statistic is above this.")]
BridgeOption = Annotated[str, typer.Option(help="auto, or layers like 24-29.")]
ExcludeLastOption = Annotated[int, typer.Option(help="Last layers that auto leaves out.", min=0)]

# Steering.
LayersOption = Annotated[str | None, typer.Option(help="Bridge layers, like 13-15; default: the masks'.")]
SpecificScopeOption = Annotated[str, typer.Option(help="all or own, as in hf-clas.")]
PartialScopeOption = Annotated[str, typer.Option(help="all, own or anchor, as in hf-clas.")]

# What comes out.
WidthOption = Annotated[
    float | None,
    number_option("How wide pictures are printed, in inches: 3.25 for a paper's column, say; default: 6.3, its page."),
]
MetricOption = Annotated[
    str | None, typer.Option(help="Which metric; default: f1_lang, f1, acc, nats_per_byte, in_language, or the task's first.")
]
ClusterOption = Annotated[
    str | None,
    typer.Option(help="Field of documents that items of one passage, say, share; none: each item by itself; default: found."),
]
JsonFileOption = Annotated[Path | None, path_option("Write all of it to FILE.json too.")]
