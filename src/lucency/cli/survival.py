"""`lucency survival`: does a trigger reach the network?"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from lucency.cli.answers import answer, validate
from lucency.cli.options import Json
from lucency.errors import ConfigError


def survival(
    native: Annotated[int, typer.Option(help="Height and width of the film, pixels.")] = 1024,
    size: Annotated[int, typer.Option(help="Side of the square trigger, native pixels.")] = 3,
    place: Annotated[
        str, typer.Option(help='"center", "random", or "X,Y" native pixels.')
    ] = "center",
    crop: Annotated[float, typer.Option(help="Central fraction kept.")] = 0.6,
    resize: Annotated[str, typer.Option(help="Resize kernel.")] = "nearest",
    network: Annotated[int, typer.Option(help="Height and width at the network, pixels.")] = 224,
    grey: Annotated[float, typer.Option(help="Trigger's grey, 0 = black, 1 = white.")] = 0.0,
    as_json: Json = False,
) -> None:
    """Does this trigger reach the network through this preprocessing?"""
    from lucency.attacks.patch import PatchTrigger
    from lucency.attacks.survival import measure_survival, survival_over_places
    from lucency.data.preprocess import InputContract

    trigger = validate({"size_px": size, "grey": grey, "place": _place(place)}, PatchTrigger)
    contract = validate({"crop": crop, "resize": resize, "size": network}, InputContract)
    if not size <= native <= 16384:
        raise ConfigError(f"--native must be in [{size}, 16384] pixels, got {native}.")
    if trigger.is_random:
        spread = survival_over_places(trigger, contract, (native, native))
        sentence = (
            f"Over {spread.n_places} places: {spread.mean_pixels:.2f} network pixels on average, "
            f"nothing left at {spread.share_vanished:.1%} of them; pixels left: "
            + ", ".join(f"{k} at {v:.1%}" for k, v in spread.pixels.items())
        )
        answer(spread.model_dump(), sentence, as_json)
        return
    left = measure_survival(trigger, contract, (native, native), (0.0, 0.0))
    answer(
        left.model_dump(),
        f"{left.pixels} network pixels differ, by up to {left.max_change:.0%} of the grey range "
        f"({left.native_px} native pixels were stamped).",
        as_json,
    )


def _place(text: str) -> Any:
    if text in ("center", "random"):
        return text
    try:
        x, y = (int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f'--place must be "center", "random" or "X,Y" in native pixels, got {text!r}.'
        ) from None
    return [x, y]
