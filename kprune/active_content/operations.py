"""What a TensorFlow operation does besides computing, told from its node alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kprune.active_content.inert_operations import INERT

_DOES = {
    "reads files": """
        ReadFile MatchingFiles Restore RestoreSlice RestoreV2 DTensorRestoreV2 LoadAndRemapMatrix
        TextLineReader TextLineReaderV2 TFRecordReader TFRecordReaderV2 WholeFileReader WholeFileReaderV2
        FixedLengthRecordReader FixedLengthRecordReaderV2 LMDBReader RecordInput Skipgram ImportEvent
        InitializeTableFromTextFile InitializeTableFromTextFileV2 FixedUnigramCandidateSampler
        GenerateVocabRemapping ImmutableConst EncodeProto DecodeProtoV2
        TextLineDataset TFRecordDataset TFRecordDatasetV2 FixedLengthRecordDataset
        FixedLengthRecordDatasetV2 CSVDataset CSVDatasetV2 LMDBDataset SqlDataset MatchingFilesDataset
        LoadDataset ListSnapshotChunksDataset SnapshotDataset SnapshotDatasetV2 SnapshotDatasetReader
        SnapshotNestedDatasetReader ExperimentalCSVDataset ExperimentalLMDBDataset
        ExperimentalMatchingFilesDataset ExperimentalSqlDataset""",
    "writes files": """
        WriteFile Save SaveSlices SaveV2 MergeV2Checkpoints DistributedSave DumpTensor PrintV2
        CreateSummaryFileWriter CreateSummaryDbWriter WriteSummary WriteRawProtoSummary
        WriteScalarSummary WriteHistogramSummary WriteImageSummary WriteAudioSummary WriteGraphSummary
        FlushSummaryWriter CalibrationStatisticsSaver SaveDataset SaveDatasetV2 DatasetToTFRecord
        ExperimentalDatasetToTFRecord CacheDataset CacheDatasetV2""",
    "writes files or to the network": """
        DebugIdentity DebugIdentityV2 DebugIdentityV3 DebugNanCount DebugNumericSummary
        DebugNumericSummaryV2 Copy CopyHost""",
    "runs Python code": "PyFunc PyFuncStateless EagerPyFunc",
    "uses the network": """
        RpcCall RpcCheckStatus RpcClient RpcGetValue RpcServer RpcServerRegister RpcServerStart RemoteCall
        Send Recv DataServiceDataset DataServiceDatasetV2 DataServiceDatasetV3 DataServiceDatasetV4
        RegisterDataset RegisterDatasetV2""",
    "runs compiled code": "XlaCallModule XlaCustomCall XlaCustomCallV2 MlirPassthroughOp",
    "ends the process": "Abort",
}  # fmt: skip
DOES = {name: does for does, names in _DOES.items() for name in names.split()}
UNKNOWN = "is not known to stay inside the model"

CALLERS = frozenset(
    """
    Case For If MapDefun PartitionedCall StatefulPartitionedCall StatelessCase StatelessIf
    StatelessWhile SymbolicGradient While XlaIf XlaReduce XlaReduceWindow XlaScatter
    XlaSelectAndScatter XlaVariadicReduce XlaVariadicReduceV2 XlaVariadicSort XlaWhile
    """.split()
)
"""Inert operations that call functions; all others call none, whatever their attributes say."""

CALL_NOTHING = INERT - CALLERS

TABLES_FROM_FILES = {"InitializeTableFromTextFile": 1, "InitializeTableFromTextFileV2": 1}
"""Operations that fill a table from a file, and which of their inputs is its name."""

CHECKPOINTS = frozenset({"SaveV2", "RestoreV2", "MergeV2Checkpoints"})
"""What every SavedModel saves its variables with, and restores them. TensorFlow restores from the
folder that it is told to load, and saves only when it is told to."""


def does(name: str) -> str:
    """What an operation that is not inert does, as the rest of a sentence that begins with its name."""
    return DOES.get(name, UNKNOWN)


def is_inert(node: Any) -> bool:
    """Whether a node computes and does nothing else, judged by its operation and its attributes.

    Args:
        node: a NodeDef. Calls of functions are not followed.
    """
    known = _INERT_IF.get(node.op)
    return node.op in INERT if known is None else known(node.attr)


def _text(attributes: Mapping[str, Any], name: str, default: bytes) -> bytes:
    return bytes(attributes[name].s) if name in attributes else default


def _prints_to_standard_error(attributes: Mapping[str, Any]) -> bool:
    return _text(attributes, "output_stream", b"stderr") in _STREAMS


_STREAMS = {b"stderr", b"log(info)", b"log(warning)", b"log(error)"}


def _reads_no_vocabulary(attributes: Mapping[str, Any]) -> bool:
    return not _text(attributes, "vocab_file", b"")


def _holds_its_descriptors(attributes: Mapping[str, Any]) -> bool:
    source = _text(attributes, "descriptor_source", b"local://")
    return source.startswith((b"local://", b"bytes://"))


def _calls_nothing_custom(attributes: Mapping[str, Any]) -> bool:
    """Whether a module of StableHLO calls no code by name.

    MLIR's bytecode spells the names of its operations out, in one table; its text could escape them.
    """
    module = _text(attributes, "module", b"")
    return module.startswith(b"ML\xefR") and b"custom_call" not in module


_INERT_IF: Mapping[str, Callable[[Mapping[str, Any]], bool]] = {
    "PrintV2": _prints_to_standard_error,
    "FixedUnigramCandidateSampler": _reads_no_vocabulary,
    "EncodeProto": _holds_its_descriptors,
    "DecodeProtoV2": _holds_its_descriptors,
    "XlaCallModule": _calls_nothing_custom,
}
