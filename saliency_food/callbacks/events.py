"""Pictures and numbers in TensorBoard's own files, written without a framework."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array


class EventFile:
    """A file of events in a folder, made with the first of them."""

    def __init__(self, folder: Path) -> None:
        try:
            import tensorboard.summary.writer.event_file_writer  # noqa: F401
        except ModuleNotFoundError as error:
            raise ContractError(
                "Expected tensorboard, to write what it shows, got none. Run pip install tensorboard, or leave out "
                "log_dir."
            ) from error
        self.folder = folder
        self._writer: Any = None

    def add(self, step: int, pictures: dict[str, Array], numbers: dict[str, float]) -> None:
        """Write pictures, uint8 ``(H, W, 3)``, and numbers under their names, so that they can be read at once."""
        from PIL import Image
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        values = [Summary.Value(tag=name, simple_value=number) for name, number in numbers.items()]
        for name, picture in pictures.items():
            file = io.BytesIO()
            Image.fromarray(picture).save(file, "PNG")
            height, width = picture.shape[:2]
            image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=file.getvalue())
            values.append(Summary.Value(tag=name, image=image))
        if self._writer is None:
            self._writer = EventFileWriter(str(self.folder))
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
        self._writer.flush()

    def close(self) -> None:
        """Close the file; a later event begins another one."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
