"""The attention memory of a batch whose texts come and go: nothing whole is copied when one ends or another begins.

Every row begins at column 0 and masked columns follow it, up to a multiple of BLOCK. So the sums of a row are taken in
the same order whatever stands beside it: in bfloat16, where the processor has it, its logits are bit for bit those it would
have alone (a test); elsewhere, and where torch splits passes of 192 tokens and more otherwise, the last bits may differ.
Legend: n rows in use, H key heads, C columns of room, D head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

BLOCK = 32  # columns; torch's attention and its vectors treat the last, incomplete block of another width differently
ROWS = 8  # likewise rows, in float32 products
READ = 16  # likewise the tokens of a prompt read in one pass; fewer than BLOCK are padded to it


def blocks(tokens: int) -> int:
    """Columns for so many tokens: whole blocks, and at least one column that is masked.

    A mask that hides nothing is dropped by transformers, which then takes a path that is five times slower for one token
    a row on a CPU (9 heads over 3 key heads, 64 rows of 256 columns: 6.4 against 1.4 ms a layer) and sums otherwise.
    """
    return (tokens // BLOCK + 1) * BLOCK


class _Window:
    """What a forward pass writes and sees, the same for all layers: where each row's new columns go, columns shown."""

    def __init__(self) -> None:
        self.rows = self.start = self.columns = 0
        self.places: tuple[Tensor, Tensor] | None = None  # row and column of one new token a row; else all from `start`


class SlotLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer in two rooms of [slots, H, C, D]; the model sees views of the part in use."""

    def __init__(self, window: _Window) -> None:
        super().__init__()
        self.window = window
        self.rooms: list[Tensor] = []

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the new columns; all columns shown: [n, H, columns, D]."""
        see = self.window
        new = (key_states, value_states)
        self.rooms = self.rooms or [s.new_zeros(see.rows, s.shape[1], see.columns, s.shape[3]) for s in new]
        for room, states in zip(self.rooms, new, strict=True):
            if see.places is None:
                room[: see.rows, :, see.start : see.start + states.shape[2]] = states
            else:
                room[see.places[0], :, see.places[1]] = states[:, :, 0]
        keys, values = (room[: see.rows, :, : see.columns] for room in self.rooms)
        return keys, values

    def get_seq_length(self) -> int:
        return self.window.start

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.window.columns, 0


class Slots:
    """Memory in rooms: a row that ends gives its slot to the last one, and new rows are written behind the others."""

    joins = True  # rows may come while others are being written; texts are padded on the right

    def __init__(self, layers: int, device: torch.device) -> None:
        self.window = _Window()
        self.layers = [SlotLayer(self.window) for _ in range(layers)]
        self.cache = Cache(layers=self.layers)
        self.device = device
        self.lengths: list[int] = []

    def begin(self, lengths: Sequence[int], width: int) -> Tensor:
        """Before a pass that reads `width` columns in every row, of which row i has lengths[i]; the mask: [n, columns]."""
        known = self.lengths[0] if self.lengths else 0
        self.lengths = [known + length for length in lengths]
        self.window.rows, self.window.start, self.window.columns = len(lengths), known, blocks(known + width)
        self.window.places = None
        return self._mask([max(1, length) for length in self.lengths])  # a row that sees nothing would be NaN

    def step(self) -> Tensor:
        """Before a pass that reads one token in every row, and in idle ones up to a multiple of ROWS; the mask: [n, C]."""
        slots = -(-len(self.lengths) // ROWS) * ROWS
        places = [*self.lengths, *[0] * (slots - len(self.lengths))]
        self.lengths = [length + 1 for length in self.lengths]
        columns = blocks(max(self.lengths))
        self._make_room(slots, columns)
        self.window.rows, self.window.start, self.window.columns = slots, columns - 1, columns
        self.window.places = torch.arange(slots, device=self.device), torch.tensor(places, device=self.device)
        return self._mask([place + 1 for place in places])

    def _mask(self, lengths: Sequence[int]) -> Tensor:
        columns = torch.arange(self.window.columns, device=self.device)
        return (columns < torch.tensor(lengths, device=self.device).unsqueeze(-1)).long()

    def _make_room(self, slots: int, columns: int) -> None:
        held = self.layers[0].rooms[0].shape
        if slots <= held[0] and columns <= held[2]:
            return
        slots, columns = max(slots, held[0]), max(columns, held[2] + 2 * BLOCK)
        for layer in self.layers:
            for i, old in enumerate(layer.rooms):
                layer.rooms[i] = old.new_zeros(slots, old.shape[1], columns, old.shape[3])
                layer.rooms[i][: held[0], :, : held[2]] = old

    def keep(self, rows: Sequence[int]) -> list[int]:
        """Forget the other rows; holes are filled with the last ones, and only these are copied. The old rows in order."""
        staying, late = set(rows), [row for row in rows if row >= len(rows)]
        order = [row if row in staying else late.pop() for row in range(len(rows))]
        for hole, row in enumerate(order):
            if hole != row:
                for room in (room for layer in self.layers for room in layer.rooms):
                    room[hole, :, : self.lengths[row]] = room[row, :, : self.lengths[row]]
        self.lengths = [self.lengths[row] for row in order]
        return order

    def join(self, other: Slots, slots: int) -> None:
        """Take the other memory's rows behind these."""
        n, m, columns = len(self.lengths), len(other.lengths), max(other.lengths)
        self._make_room(slots, columns)
        for layer, joining in zip(self.layers, other.layers, strict=True):
            for room, block in zip(layer.rooms, joining.rooms, strict=True):
                room[n : n + m, :, :columns] = block[:m, :, :columns]
        self.lengths += other.lengths

    def repeat(self, rows: int, width: int) -> Slots:
        """A memory of so many rows that begin with the tokens of this one's single row, and room for `width` more."""
        new, known = Slots(len(self.layers), self.device), self.lengths[0]
        for layer, single in zip(new.layers, self.layers, strict=True):
            for room in single.rooms:
                layer.rooms.append(room.new_zeros(rows, room.shape[1], blocks(known + width), room.shape[3]))
                layer.rooms[-1][:, :, :known] = room[:, :, :known]
        new.lengths = [known] * rows
        return new


class Stack:
    """Memory of any other model (sliding windows, recurrent states): rows only leave; texts are padded on the left."""

    joins = False

    def __init__(self, config: Any, device: torch.device) -> None:
        self.cache = DynamicCache(config=config)
        self.device = device
        self.held = torch.zeros(0, 0, dtype=torch.long, device=device)  # [n, columns]: 1 where a token stands

    def begin(self, lengths: Sequence[int], width: int) -> Tensor:
        """Before a pass that reads the first `width` columns, in row i the last lengths[i] of them; the mask."""
        columns = torch.arange(width, device=self.device)
        self.held = (columns >= width - torch.tensor(lengths, device=self.device).unsqueeze(-1)).long()
        return self.held

    def step(self) -> Tensor:
        """Before a pass that reads one token in every row; the mask."""
        self.held = torch.cat([self.held, self.held.new_ones(len(self.held), 1)], dim=-1)
        return self.held

    def keep(self, rows: Sequence[int]) -> list[int]:
        """Forget the other rows; the old rows in order."""
        index = torch.tensor(rows, device=self.device)
        self.cache.reorder_cache(index)
        self.held = self.held[index]
        return list(rows)


def new_memory(config: Any, device: torch.device) -> Slots | Stack:
    """Slots if every layer of the model keeps all keys and values, else a Stack."""
    layers = DynamicCache(config=config).layers
    whole = bool(layers) and all(type(layer) is DynamicLayer for layer in layers)
    return Slots(len(layers), device) if whole else Stack(config, device)
