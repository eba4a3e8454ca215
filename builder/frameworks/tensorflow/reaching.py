"""Operators of a TensorFlow graph that read or write files, open connections or run Python code: found in its bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from builder.errors import SpecError
from builder.frameworks.tensorflow.wire import message, messages, text_of

REACHING: Final = re.compile(
    r"(?:Experimental)?(?:"
    r"EagerPyFunc|PyFunc(?:Stateless)?|Rpc\w+"
    r"|(?:Read|Write)File|MatchingFiles|RecordInput|ImmutableConst|Skipgram|GenerateVocabRemapping|LoadAndRemapMatrix"
    r"|(?:WholeFile|TextLine|FixedLengthRecord|TFRecord|LMDB)Reader"
    r"|(?:TextLine|FixedLengthRecord|TFRecord|CSV|LMDB|Sql|MatchingFiles|Cache|Save|Load|DataService)Dataset"
    r"|Snapshot\w*Dataset(?:Reader)?|DatasetToTFRecord|DistributedSave|RegisterDataset"
    r"|CreateSummary(?:File|Db)Writer|CalibrationStatisticsSaver|Debug(?:Identity|NanCount|NumericSummary)"
    r"|FileSystemSetConfiguration"
    r")(?:V\d+)?"
)
"""Not among them: the table initialisers that read a vocabulary, and the savers that every SavedModel has."""
PRINTS: Final = "PrintV2"
STREAM: Final = "output_stream"
SHOWN: Final = 4


def graph_nodes(graph: bytes | memoryview) -> Iterator[memoryview]:
    """The nodes of a GraphDef and of its functions."""
    yield from messages(graph, 1)
    for function in messages(message(graph, 2), 1):
        yield from messages(function, 3)


def reaching_nodes(graph: bytes | memoryview) -> tuple[tuple[str, str], ...]:
    """Operator and name of every node that reaches beyond the graph."""
    found = []
    for node in graph_nodes(graph):
        operator = text_of(message(node, 2))
        if REACHING.fullmatch(operator) or (operator == PRINTS and _prints_to_file(node)):
            found.append((operator, text_of(message(node, 1))))
    return tuple(sorted(set(found)))


def _prints_to_file(node: memoryview) -> bool:
    streams = (message(message(entry, 2), 2) for entry in messages(node, 5) if text_of(message(entry, 1)) == STREAM)
    return any(text_of(stream).startswith("file:") for stream in streams)


def refuse_reaching(path: Path, nodes: Sequence[tuple[str, str]]) -> None:
    """What such a node does is decided by the file.

    Raises:
        SpecError: there is one; the operators and the names of their nodes.
    """
    if not nodes:
        return
    shown = ", ".join(f"{operator} ({name})" for operator, name in nodes[:SHOWN])
    more = f" and {len(nodes) - SHOWN} more" if len(nodes) > SHOWN else ""
    raise SpecError(
        f"{path.name} has operators that reach files, the network or Python code: {shown}{more}",
        remedy="save the model without them; or, if you trust it, write source: {path: ..., allow_pickle: true} in a "
        "spec",
    )
