"""What a compiled program moves: bytes of a device's main memory by part of the network, and collectives by kind.

XLA's own cost analysis counts a loop's body once and does not tell main memory from the memory on the chip, so both are
read off the text of the compiled program: every instruction that is not inside a fusion reads its operands and writes
its result, loops run as often as their condition says, and arrays that the compiler placed on the chip move nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

_COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "after-all"),
    *("partition-id", "replica-id", "opt-barrier", "async-start", "async-update"),
}
"""Instructions that move nothing themselves."""
_FREE_CALLS = ("AllocateBuffer", "ConcatBitcast", "AssumeGatherIndicesInBound", "GatherScatterIndicesBitpacked")
_SLICES = ("dynamic-slice", "slice", "gather")
_BITS = {"pred": 8, "s4": 4, "u4": 4, "bf16": 16, "f8e4m3fn": 8, "f8e5m2": 8, "c64": 64, "c128": 128}
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\](?:\{([^}]*)\})?")
_REFERENCE = re.compile(r"%([\w.-]+)")
_PARTS = (
    ("attention", r"pallas_call|dot_product_attention|cudnn|attention_layer/(?!qkv|attn_proj)|bqhd|bhqk|BTNH|BNTS"),
    ("layer norms", r"_ln/|/_ln"),
    ("pooling", r"seq_attnpool"),
    ("dense layers", r"qkv|attn_proj|mlp_layer|cls_proj|/embedding/|/head"),
    ("token embeddings", r"Embed_0|token_encoder"),
    ("pairs and losses", r"logsumexp|qh,kh|log_softmax|bps,bph|argsort|top_k|one_hot"),
    ("between layers", r"jvp|transpose"),
    ("optimizer and state", r"."),
    ("moves to and from the chip", r""),
)
"""Parts of a program by what the names of their operations hold; the first match counts."""


@dataclass(frozen=True)
class Collective:
    """All collectives of a kind in one step on one device: how many, and the bytes that it sends for them."""

    kind: str
    count: int
    bytes: float


@dataclass(frozen=True)
class ProgramCost:
    """What one run of a program does on one device; `bytes` are of main memory, by part."""

    bytes: Mapping[str, float]
    collectives: tuple[Collective, ...]

    @property
    def total_bytes(self) -> float:
        """Bytes of main memory that are read or written."""
        return sum(self.bytes.values())

    @property
    def sent_bytes(self) -> float:
        """Bytes that the device sends to others."""
        return sum(collective.bytes for collective in self.collectives)


@dataclass(frozen=True)
class _Instruction:
    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str

    def called(self, attribute: str) -> str:
        """Return the computation that an attribute names, "" if there is no such attribute."""
        match = re.search(rf"\b{attribute}=%([\w.-]+)", self.attributes)
        return match[1] if match else ""

    @cached_property
    def part(self) -> str:
        named = re.search(r'op_name="([^"]*)"', self.attributes)
        return next(part for part, pattern in _PARTS if re.search(pattern, named[1] if named else ""))


@dataclass
class _Computation:
    instructions: dict[str, _Instruction] = field(default_factory=dict)
    root: str = ""

    @cached_property
    def users(self) -> dict[str, list[_Instruction]]:
        users: dict[str, list[_Instruction]] = {}
        for instruction in self.instructions.values():
            for operand in instruction.operands:
                users.setdefault(operand, []).append(instruction)
        return users

    @cached_property
    def parameters(self) -> dict[int, str]:
        """The names of parameters by their number."""
        return {
            int(instruction.attributes.partition(")")[0].lstrip("(") or 0): name
            for name, instruction in self.instructions.items()
            if instruction.opcode == "parameter"
        }


def analyse(text: str) -> ProgramCost:
    """Count what the program of this HLO text moves; its shapes are those of one device."""
    computations, entry = _parse(text)
    moved: dict[str, float] = {}
    collectives: dict[str, tuple[int, float]] = {}
    for computation, instruction, times in _executed(computations, entry, 1):
        for kind, sent in _sendings(computations, computation, instruction):
            count, size = collectives.get(kind, (0, 0.0))
            collectives[kind] = count + times, size + times * sent
        cost = _moved(computations, computation, instruction)
        if cost:
            moved[instruction.part] = moved.get(instruction.part, 0.0) + times * cost
    ordered = tuple(Collective(kind, *collectives[kind]) for kind in _COLLECTIVES if kind in collectives)
    return ProgramCost(moved, ordered)


def _parse(text: str) -> tuple[dict[str, _Computation], str]:
    computations: dict[str, _Computation] = {}
    entry, current = "", None
    for line in text.splitlines():
        header = re.match(r"(ENTRY )?%([\w.-]+) \(.*\{$", line)
        if header:
            current = computations[header[2]] = _Computation()
            entry = header[2] if header[1] else entry
        elif current is not None and (parsed := _instruction(line)):
            current.instructions[parsed.name] = parsed
            if line.lstrip().startswith("ROOT"):
                current.root = parsed.name
    return computations, entry


def _instruction(line: str) -> _Instruction | None:
    start = re.match(r"\s+(?:ROOT )?%([\w.-]+) = ", line)
    if not start:
        return None
    rest = line[start.end() :]
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    opcode, _, behind = rest[end:].lstrip().partition("(")
    close = _closing("(" + behind, 0) - 1
    operands = tuple(_REFERENCE.findall(behind[:close]))
    attributes = behind if opcode == "parameter" or opcode == "constant" else behind[close:]
    return _Instruction(start[1], rest[:end], opcode, operands, attributes)


def _closing(text: str, opening: int) -> int:
    """Return where the parenthesis that opens at `opening` is closed."""
    depth = 0
    for index in range(opening, len(text)):
        depth += {"(": 1, ")": -1}.get(text[index], 0)
        if depth == 0:
            return index
    return len(text) - 1


def _executed(
    computations: Mapping[str, _Computation], name: str, times: int
) -> Iterator[tuple[_Computation, _Instruction, int]]:
    """Yield every instruction outside fusions that a computation runs, and how often."""
    computation = computations[name]
    for instruction in computation.instructions.values():
        yield computation, instruction, times
        if instruction.opcode == "while":
            trips = _trips(computations, instruction)
            yield from _executed(computations, instruction.called("body"), times * trips)
        elif instruction.opcode in ("call", "async-start") and (called := instruction.called("to_apply|calls")):
            yield from _executed(computations, called, times)
        elif instruction.opcode == "conditional":
            branches = re.search(r"branch_computations=\{([^}]*)\}", instruction.attributes)
            for branch in _REFERENCE.findall(branches[1])[-1:] if branches else ():
                yield from _executed(computations, branch, times)


def _trips(computations: Mapping[str, _Computation], loop: _Instruction) -> int:
    """Return how often a loop runs: what its condition compares its counter with."""
    known = re.search(r'known_trip_count[^\d]*"?n"?[^\d]*(\d+)', loop.attributes)
    if known:
        return int(known[1])
    condition = computations[loop.called("condition")]
    bounds = [i.attributes for i in condition.instructions.values() if i.opcode == "constant" and "s32" in i.type]
    numbers = [int(match[0]) for bound in bounds if (match := re.match(r"\d+", bound))]
    return max(numbers, default=1)


def _arrays(type_text: str) -> Iterator[tuple[float, bool]]:
    """Bytes, with the padding of the layout's tiles, of every array of a type, and whether it is in main memory."""
    for dtype, sizes, layout in _ARRAY.findall(type_text):
        bits = _BITS.get(dtype) or int(re.sub(r"\D", "", dtype) or 0)
        dimensions = [int(size) for size in sizes.split(",") if size]
        order, _, tiling = layout.partition(":")
        tile = re.search(r"T\(([\d,]+)\)", tiling)
        if tile and order:
            minor = [int(index) for index in order.split(",")]
            for index, size in zip(minor, reversed([int(size) for size in tile[1].split(",")]), strict=False):
                dimensions[index] = -(-dimensions[index] // size) * size
        yield math.prod(dimensions) * bits / 8, "S(" not in tiling


def _size(type_text: str) -> float:
    """Bytes of a type that are in main memory."""
    return sum(size for size, main in _arrays(type_text) if main)


def _moved(computations: Mapping[str, _Computation], inside: _Computation, instruction: _Instruction) -> float:
    """Bytes of main memory that one instruction reads and writes."""
    opcode = instruction.opcode
    if opcode in _FREE or opcode.endswith("-done"):
        return 0
    if opcode == "custom-call" and any(f'"{call}"' in instruction.attributes for call in _FREE_CALLS):
        return 0
    if opcode == "copy-start":
        return sum(size for size, main in list(_arrays(instruction.type))[:2] if main)
    if opcode == "slice-start":
        (_, from_main), (size, to_main) = list(_arrays(instruction.type))[:2]
        return size * (from_main + to_main)
    if opcode == "fusion":
        return _of_fusion(computations, inside, instruction)
    if opcode in _SLICES:
        return 2 * _size(instruction.type)
    # A kernel may be given an array several times, and reads another part of it each time.
    names = dict.fromkeys(name for name in instruction.operands if name in inside.instructions)
    types = [inside.instructions[name].type for name in names]
    if opcode == "dynamic-update-slice":
        return 2 * _size(types[1])
    if opcode == "scatter":
        return 3 * _size(types[-1])
    written = _size(instruction.type)
    if opcode.endswith("-start"):
        written /= 2
    return written + sum(map(_size, types))


def _of_fusion(computations: Mapping[str, _Computation], inside: _Computation, fusion: _Instruction) -> float:
    name = fusion.called("calls")
    read = 0.0
    for index, operand in enumerate(fusion.operands):
        source = inside.instructions.get(operand)
        if source is not None and _size(source.type):
            read += min(_size(source.type), _read(computations, name, index))
    return read + _written(computations[name], fusion)


def _read(computations: Mapping[str, _Computation], name: str, parameter: int) -> float:
    """Bytes that a fusion reads of one parameter: only slices of it where only slices are used."""
    computation = computations[name]
    whole = computation.parameters[parameter]
    total, stack = 0.0, [whole]
    while stack:
        value = stack.pop()
        for user in computation.users.get(value, ()):
            if user.opcode in _SLICES:
                total += sum(size for size, _ in _arrays(user.type))
            elif user.opcode == "dynamic-update-slice" and user.operands[0] == value:
                continue
            elif user.opcode == "bitcast":
                stack.append(user.name)
            elif user.opcode == "fusion":
                total += sum(
                    _read(computations, user.called("calls"), index)
                    for index, operand in enumerate(user.operands)
                    if operand == value
                )
            else:
                return math.inf
    return total


def _written(computation: _Computation, fusion: _Instruction) -> float:
    """Bytes that a fusion writes: only the update where it changes a slice of an array in place."""
    root = computation.instructions[computation.root]
    while root.opcode == "bitcast":
        root = computation.instructions[root.operands[0]]
    results = [computation.instructions[name] for name in root.operands] if root.opcode == "tuple" else [root]
    sizes = list(_arrays(fusion.type))
    written = 0.0
    for result, (size, main) in zip(results, sizes, strict=False):
        while result.opcode == "bitcast":
            result = computation.instructions[result.operands[0]]
        if result.opcode == "dynamic-update-slice":
            update = computation.instructions[result.operands[1]]
            size = min(size, sum(part for part, _ in _arrays(update.type)))
        written += size if main else 0
    return written


def _sendings(
    computations: Mapping[str, _Computation], inside: _Computation, instruction: _Instruction
) -> Iterator[tuple[str, float]]:
    """Yield the kind and the bytes of the collectives that an instruction is or, as a fusion, contains."""
    if instruction.opcode == "fusion":
        fused = computations[instruction.called("calls")]
        for inner in fused.instructions.values():
            for kind, sent in _sendings(computations, fused, inner):
                # TPUs write a reduce-scatter as a fused all-reduce of which each device keeps a slice.
                scatters = kind == "all-reduce" and any(
                    i.opcode == "dynamic-slice" for i in fused.instructions.values()
                )
                yield ("reduce-scatter", sent / 2) if scatters else (kind, sent)
    for kind in _COLLECTIVES:
        if instruction.opcode in (kind, f"{kind}-start"):
            yield kind, _sent(kind, instruction, inside)


def _sent(kind: str, instruction: _Instruction, inside: _Computation) -> float:
    """Bytes that a device sends for one collective on a ring of its group."""
    operands = [inside.instructions[name].type for name in instruction.operands if name in inside.instructions]
    given = sum(size for text in operands for size, _ in _arrays(text))
    devices = _group(instruction.attributes)
    if kind == "collective-permute" or devices < 2:
        return given if kind == "collective-permute" else 0.0
    share = (devices - 1) / devices
    return {"all-reduce": 2 * given * share, "all-gather": given * (devices - 1)}.get(kind, given * share)


def _group(attributes: str) -> int:
    """Return the devices of one group of a collective, from any of XLA's notations."""
    if mesh := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", attributes):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", mesh[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'([^']+)'", mesh[2]))
    if iota := re.search(r"replica_groups=\[\d+,(\d+)\]<=", attributes):
        return int(iota[1])
    if listed := re.search(r"replica_groups=\{\{([^}]*)\}", attributes):
        return len(listed[1].split(","))
    return 1
